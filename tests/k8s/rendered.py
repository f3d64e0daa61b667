"""What an overlay makes: its manifests, and the pods that come of them."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as Kubernetes gets it, by the name of what makes it."""

    name: str
    labels: Mapping[str, str]
    spec: Manifest

    def containers(self) -> list[Manifest]:
        """Every container, those that run first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    def ports(self) -> dict[int, str]:
        """The names of the ports that it listens on."""
        return {port["containerPort"]: port["name"] for one in self.containers() for port in one.get("ports", ())}


def render(overlay: str) -> list[Manifest]:
    """Every manifest of an overlay, as `kubectl apply -k` sends it."""
    command = ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def service_of(manifests: list[Manifest]) -> Manifest:
    return next(one for one in manifests if one["kind"] == "RayService")


def groups_of(manifests: list[Manifest]) -> list[Manifest]:
    return service_of(manifests)["spec"]["rayClusterConfig"]["workerGroupSpecs"]


def pods_of(manifests: list[Manifest]) -> Iterator[Pod]:
    """One pod of each kind: the head, each group's worker, what empties Redis, and Redis."""
    cluster = service_of(manifests)["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]
    scaler = {"name": "autoscaler", **cluster["autoscalerOptions"]}
    whole = {**head["spec"], "containers": [*head["spec"]["containers"], scaler]}
    yield Pod("head", kuberay_labels(head, "head", "headgroup"), whole)
    yield Pod("redis-cleanup", kuberay_labels(head, "redis-cleanup", "headgroup"), {**head["spec"]})
    for group in cluster["workerGroupSpecs"]:
        labels = kuberay_labels(group["template"], "worker", group["groupName"])
        yield Pod(group["groupName"], labels, group["template"]["spec"])
    for manifest in manifests:
        if manifest["kind"] == "StatefulSet":
            template = manifest["spec"]["template"]
            yield Pod(manifest["metadata"]["name"], template["metadata"]["labels"], template["spec"])


def kuberay_labels(template: Manifest, node_type: str, group: str) -> dict[str, str]:
    """The labels that KubeRay gives a Ray pod. A template may override all but `node-type`, `group` and `cluster`."""
    own = template.get("metadata", {}).get("labels", {})
    fixed = {"ray.io/cluster": "darkroom-x7k2p", "ray.io/node-type": node_type, "ray.io/group": group}
    return {"ray.io/is-ray-node": "yes", "app.kubernetes.io/name": "kuberay", **own, **fixed}


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a Kubernetes label selector matches."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In", "another operator needs a line here"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True
