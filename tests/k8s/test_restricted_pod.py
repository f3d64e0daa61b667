"""Containers under their restrictions: an ordinary user, a read-only root, the declared volumes, a token for Ray.

Not tried here: the seccomp profile, and the limits of CPU and memory.
"""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serve_app.config.ray_environment import BINARY_VARIABLE, HAPROXY_PROGRAM
from tests.k8s.rendered import OVERLAYS, ROOT, Manifest, Pod, pods_of, service_of
from tests.k8s.sandbox import Writable, common, sandbox, writable_of

UNWRITABLE = ["/", "/dev", "/etc", "/home", "/root", "/usr", sys.prefix, str(ROOT)]
PROBES = {"ready": "readinessProbe", "alive": "livenessProbe"}
PROGRAMS = f"{Path(sys.executable).parent}:/usr/bin:/bin"


@pytest.fixture(autouse=True)
def bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("no bubblewrap: apt-get install bubblewrap")


def ray_containers(rendered: dict[str, list[Manifest]]) -> list[tuple[Pod, Manifest]]:
    """Those of every overlay, with their pods."""
    pods = [pod for overlay in OVERLAYS for pod in pods_of(rendered[overlay])]
    return [(pod, one) for pod in pods for one in pod.spec["containers"] if one["name"].startswith("ray-")]


def environment_of(manifests: list[Manifest]) -> dict[str, str]:
    """What the Dockerfile, the pods and KubeRay set."""
    lines = re.findall(r"^ENV (.+)$", (ROOT / "Dockerfile").read_text().split("AS runtime")[1], re.MULTILINE)
    image = dict(pair.split("=", 1) for line in lines for pair in line.split())
    (made,) = (one for one in manifests if one["metadata"]["name"].startswith("darkroom-env-"))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    here = {BINARY_VARIABLE: str(HAPROXY_PROGRAM), "PATH": PROGRAMS, "PYTHONPATH": str(ROOT)}
    return {**image, **made["data"], **token, **here}


def ask_in_pod(writable: Writable, environment: dict[str, str], asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What tests/k8s/in_pod.py tells, and what it writes to standard error."""
    command = [*sandbox(writable, environment, user=1000), "python", "-m", "tests.k8s.in_pod", json.dumps(asked)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout), run.stderr


@pytest.mark.ray
def test_the_server_draws_where_only_the_volumes_can_be_written(rendered: dict[str, list[Manifest]]) -> None:
    containers = ray_containers(rendered)
    writable = reduce(common, (writable_of(*one) for one in containers))
    assert set(writable) == {"/tmp", "/dev/shm"}
    probes = {
        f"{container['name']} {state}": container[key]["exec"]["command"]
        for _, container in containers
        for state, key in PROBES.items()
    }
    (group,) = service_of(rendered["cpu-demo"])["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    start = ["ray", "start", "--head", "--block", "--num-cpus=4", "--no-monitor", "--node-ip-address=127.0.0.1"]
    start += ["--metrics-export-port=8080", "--dashboard-agent-listen-port=52365"]  # KubeRay's
    start += [f"--{name}={value}" for name, value in group["rayStartParams"].items()]
    deploy = ["serve", "deploy", "configs/cpu-demo.yaml", "--address", "http://127.0.0.1:8265"]
    asked = {"start": start, "deploy": deploy, "probes": probes, "unwritable": UNWRITABLE}
    told, log = ask_in_pod(writable, environment_of(rendered["cpu-demo"]), asked)
    assert told["Uid"].split() == ["1000"] * 4
    assert (int(told["CapEff"], 16), int(told["CapBnd"], 16), told["NoNewPrivs"]) == (0, 0, "1")
    assert told["written"] == []
    assert not any(told["early"].values())
    assert all(told["late"].values())
    assert told["probe_seconds"] < 0.5
    assert told["dashboard"] == 401
    assert "instead of /dev/shm" not in log
    assert Image.open(io.BytesIO(base64.b64decode(told["image"]))).size == (128, 128)


def test_redis_runs_where_only_its_claim_can_be_written(rendered: dict[str, list[Manifest]]) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis: apt-get install redis-server")
    pod = next(one for one in pods_of(rendered["gpu"]) if one.name == "darkroom-redis")
    (container,) = pod.spec["containers"]
    environment = {"PATH": PROGRAMS, container["env"][0]["name"]: "pass word"}
    # The server in the background, the probe until it passes, then somebody without the password.
    script = """
        "${@:4}" > /dev/null & server=$!
        for _ in {1..50}; do "${@:1:3}" && break; sleep 0.1; done
        "${@:1:3}" && echo ready
        tr '\\0' ' ' < /proc/$server/cmdline; echo
        REDISCLI_AUTH= redis-cli ping | head -1
        ls /data
        touch /here 2> /dev/null || echo refused
    """
    probe = container["readinessProbe"]["exec"]["command"]
    inside = ["bash", "-c", script, "redis", *probe, *container["command"]]
    command = [*sandbox(writable_of(pod, container), environment, user=999), *inside]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    ready, arguments, unknown, *files = run.stdout.splitlines()
    assert (ready, files) == ("ready", ["appendonlydir", "refused"]), run
    assert arguments.startswith("redis-server")
    assert "pass word" not in arguments
    assert unknown.startswith("NOAUTH")
