"""Runs in the sandbox of test_restricted_pod.py: starts Ray and Serve, runs the probes, draws an image.

Its argument is JSON: `start` and `deploy` (commands), `probes` (commands by name), `unwritable` (directories). It
writes JSON to standard output.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

START_SECONDS, BEAT_SECONDS, PROBE_SECONDS = 120, 0.2, 5
SERVE, DASHBOARD = "http://127.0.0.1:8000", "http://127.0.0.1:8265"


def passes(probe: Sequence[str]) -> bool:
    """Whether a probe's command ends with 0, in the time that the kubelet gives it."""
    return subprocess.run(probe, timeout=PROBE_SECONDS, capture_output=True).returncode == 0


def wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(BEAT_SECONDS)


def answer(url: str, body: Mapping[str, object] | None = None) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def writable(folder: str) -> bool:
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def rights() -> dict[str, str]:
    """Who this process is, and what it may do, by Linux' own names."""
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    return {key: lines[key] for key in ("Uid", "CapEff", "CapBnd", "NoNewPrivs")}


def seconds_of(probe: Sequence[str]) -> float:
    """Processor time of one run of a probe, seconds."""
    before = os.times()
    passes(probe)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def run(start: Sequence[str], deploy: Sequence[str], probes: Mapping[str, Sequence[str]], unwritable: list[str]) -> Any:
    early = {name: passes(probe) for name, probe in probes.items()}
    subprocess.Popen(start, stdout=sys.stderr)
    wait_until(lambda: passes(probes["ray-head ready"]), "the head")
    subprocess.run(deploy, check=True, stdout=sys.stderr)
    wait_until(lambda: passes(probes["ray-worker ready"]), "Serve's proxy")
    wait_until(lambda: answer(f"{SERVE}/readyz")[0] == 200, "the model")
    result = {
        **rights(),
        "written": [folder for folder in unwritable if writable(folder)],
        "early": early,
        "late": {name: passes(probe) for name, probe in probes.items()},
        "probe_seconds": max(map(seconds_of, probes.values())),
        "dashboard": answer(f"{DASHBOARD}/api/serve/applications/")[0],
        "image": base64.b64encode(answer(f"{SERVE}/txt2img/", {"prompt": "red apple"})[1]).decode(),
    }
    (raylet,) = (one for one in psutil.process_iter(["name"]) if one.info["name"] == "raylet")
    raylet.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(passes(probe) for probe in probes.values()), "the probes of a dead node")
    return result


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(**json.loads(sys.argv[1]))))
