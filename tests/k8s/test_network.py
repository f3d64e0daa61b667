"""Every selector finds its pods, and every open port is one that somebody needs."""

from collections.abc import Iterator

import pytest

from tests.k8s.rendered import OVERLAYS, Manifest, Pod, groups_of, pods_of, selects

ANYBODY, CLUSTER, OPERATOR, PROMETHEUS = "anybody", "the cluster", "kuberay-system", "monitoring"
CLOSED = {8404: "HAProxy's statistics", 9101: "HAProxy's metrics", 10001: "Ray Client", 52365: "the dashboard agent"}

Opening = tuple[str, str, int | None]
"""A pod, who may reach it, and the port; None for every port."""


def selectors_of(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every selector of pods in our namespace, by the place where it stands."""
    for manifest in manifests:
        kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest.get("spec", {})
        if kind == "NetworkPolicy":
            yield f"{name}: podSelector", spec["podSelector"]
            for rule in spec["ingress"]:
                for peer in rule.get("from", ()):
                    if "namespaceSelector" not in peer:
                        yield f"{name}: from", peer["podSelector"]
        elif kind in ("PodDisruptionBudget", "PodMonitor", "StatefulSet"):
            yield f"{kind} {name}", spec["selector"]
        elif kind == "Service":
            yield f"{kind} {name}", {"matchLabels": spec["selector"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_selector_finds_a_pod(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    pods = list(pods_of(rendered[overlay]))
    found = {
        where: {pod.name for pod in pods if selects(selector, pod.labels)}
        for where, selector in selectors_of(rendered[overlay])
    }
    assert all(found.values()), found
    assert len(found) >= 10
    workers = {pod.name for pod in pods if pod.labels.get("ray.io/node-type") == "worker"}
    assert found.get("PodDisruptionBudget darkroom-workers", workers) == workers
    assert found["PodMonitor darkroom"] == {"head", *workers}
    assert found["darkroom-cluster: from"] == found["darkroom-cluster: podSelector"]
    assert found["darkroom-cluster: from"] == {"head", "redis-cleanup", *workers}


def policy_of(manifests: list[Manifest], name: str) -> Manifest:
    return next(one["spec"] for one in manifests if (one["kind"], one["metadata"]["name"]) == ("NetworkPolicy", name))


def who(peer: Manifest) -> str:
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    return namespace or CLUSTER


def openings_of(manifests: list[Manifest]) -> set[Opening]:
    """What the policies open. A pod that none selects would be open to all."""
    found = set()
    for pod in pods_of(manifests):
        policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
        mine = [spec for spec in policies if selects(spec["podSelector"], pod.labels)]
        assert mine, f"{pod.name} is open to all"
        for rule in (rule for spec in mine for rule in spec["ingress"]):
            peers = {who(peer) for peer in rule["from"]} if "from" in rule else {ANYBODY}
            ports = [one["port"] for one in rule["ports"]] if "ports" in rule else [None]
            found |= {(pod.name, peer, port) for peer in peers for port in ports}
    return found


def needs_of(pods: list[Pod]) -> set[Opening]:
    needed: set[Opening] = {("darkroom-redis", CLUSTER, 6379)}
    for pod in pods:
        if "ray.io/is-ray-node" in pod.labels:
            needed.add((pod.name, CLUSTER, None))
        if pod.labels.get("ray.io/node-type") == "worker":
            needed |= {(pod.name, ANYBODY, 8000), (pod.name, PROMETHEUS, 8080)}
        if pod.name == "head":
            needed |= {("head", PROMETHEUS, port) for port in (8080, 44217, 44227)}
            needed |= {("head", OPERATOR, port) for port in (8265, 8000)}
    return needed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_open_is_what_is_needed(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    pods = {pod.name: pod for pod in pods_of(rendered[overlay])}
    openings = openings_of(rendered[overlay])
    assert openings == needs_of(list(pods.values()))
    assert not {port for _, who, port in openings if who != CLUSTER} & set(CLOSED)
    assert all(port in pods[name].ports() for name, _, port in openings if port is not None)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_redis_is_reached_by_the_head_and_by_what_empties_it(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    (peer,) = policy_of(rendered[overlay], "darkroom-redis")["ingress"][0]["from"]
    assert {pod.name for pod in pods_of(rendered[overlay]) if selects(peer["podSelector"], pod.labels)} == {
        "head",
        "redis-cleanup",
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_operator_is_one_pod_of_its_namespace(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    """The chart names its pods so; without a podSelector anything in that namespace could deploy."""
    (peer,) = policy_of(rendered[overlay], "darkroom-operator")["ingress"][0]["from"]
    assert peer["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_reads_named_ports_that_are_open_to_it(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    (monitor,) = (one for one in rendered[overlay] if one["kind"] == "PodMonitor")
    named = {name: port for pod in pods_of(rendered[overlay]) for port, name in pod.ports().items()}
    read = {named[endpoint["port"]] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert read == {port for _, who, port in openings_of(rendered[overlay]) if who == PROMETHEUS}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_maintenance_may_take_a_worker(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    """KubeRay's clusters have no scale subresource: a budget may only be `minAvailable`, below what always runs."""
    least = sum(group["minReplicas"] for group in groups_of(rendered[overlay]))
    for manifest in rendered[overlay]:
        if manifest["kind"] == "PodDisruptionBudget":
            assert set(manifest["spec"]) == {"minAvailable", "selector"}
            assert manifest["spec"]["minAvailable"] < least
