"""No container may do more than it must, and no secret is in a manifest."""

import re
from typing import Any

import pytest

from tests.k8s.rendered import OVERLAYS, Manifest, groups_of, pods_of, service_of

SHM_SHARE = 0.95
"""Ray puts the object store on disk unless it fits into /dev/shm with something to spare."""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_confined(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    for pod in pods_of(rendered[overlay]):
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert min(context["runAsUser"], context["runAsGroup"]) > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        for container in pod.containers():
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (pod.name, container["name"])
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_pods_ask_for_what_they_may_use(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    for pod in pods_of(rendered[overlay]):
        if "ray.io/is-ray-node" in pod.labels:
            for container in pod.containers():
                assert container["resources"]["requests"] == container["resources"]["limits"]
    assert (
        service_of(rendered[overlay])["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_mounted_is_declared_and_what_is_written_is_bounded(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    for pod in pods_of(rendered[overlay]):
        volumes = {one["name"]: one for one in pod.spec.get("volumes", ())}
        for container in pod.containers():
            mounts = {one["mountPath"]: one["name"] for one in container.get("volumeMounts", ())}
            if pod.name == "darkroom-redis":
                assert mounts == {"/data": "data"}
                continue
            assert set(mounts.values()) <= set(volumes)
            assert "sizeLimit" in volumes[mounts["/tmp"]]["emptyDir"]
            if container["name"].startswith("ray-"):
                assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_object_store_fits_into_shared_memory(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    head = service_of(rendered[overlay])["spec"]["rayClusterConfig"]["headGroupSpec"]
    for group in (head, *groups_of(rendered[overlay])):
        (shm,) = (one["emptyDir"] for one in group["template"]["spec"]["volumes"] if one["name"] == "shm")
        gibibytes = int(re.fullmatch(r"(\d+)Gi", shm["sizeLimit"])[1])  # type: ignore[index]
        assert int(group["rayStartParams"]["object-store-memory"]) <= SHM_SHARE * gibibytes * 2**30


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_autoscaler_has_a_token_of_the_kubernetes_api(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    holders = set()
    for pod in pods_of(rendered[overlay]):
        assert pod.spec["automountServiceAccountToken"] is False
        tokens = {one["name"] for one in pod.spec.get("volumes", ()) if "projected" in one}
        holders |= {
            one["name"] for one in pod.containers() for mount in one.get("volumeMounts", ()) if mount["name"] in tokens
        }
    assert holders == {"autoscaler"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_that_runs_on_has_probes_without_wget(
    rendered: dict[str, list[Manifest]], overlay: str
) -> None:
    for pod in pods_of(rendered[overlay]):
        for container in pod.spec["containers"]:
            if container["name"] == "autoscaler":  # KubeRay's options for it have no probes
                continue
            for probe in (container["readinessProbe"], container["livenessProbe"]):
                assert probe["exec"]["command"][0] == "bash"
                assert not {"wget", "curl"} & set(re.findall(r"\w+", " ".join(probe["exec"]["command"])))


def strings_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, one in value.items() for text in (str(key), *strings_of(one))]
    if isinstance(value, list):
        return [text for one in value for text in strings_of(one)]
    return [str(value)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_a_manifest(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    """Secrets are made by the operator; a manifest names them. An argument would show the password to the node."""
    assert "Secret" not in {one["kind"] for one in rendered[overlay]}
    cluster = service_of(rendered[overlay])["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "darkroom-ray-token"}
    assert set(cluster["gcsFaultToleranceOptions"]["redisPassword"]) == {"valueFrom"}
    for pod in pods_of(rendered[overlay]):
        for container in pod.containers():
            assert not any(
                "$(" in word for word in strings_of(container.get("args", []) + container.get("command", []))
            )
            for variable in container.get("env", ()):
                if re.search("PASSWORD|TOKEN|SECRET|AUTH", variable["name"]):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_ray_container_has_the_common_environment(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    (made,) = (one for one in rendered[overlay] if one["metadata"]["name"].startswith("darkroom-env-"))
    assert made["data"]["HOME"] == "/tmp"
    for pod in pods_of(rendered[overlay]):
        if "ray.io/is-ray-node" in pod.labels:
            for container in pod.containers():
                assert container["envFrom"] == [{"configMapRef": {"name": made["metadata"]["name"]}}]
