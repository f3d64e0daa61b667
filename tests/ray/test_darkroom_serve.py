"""`darkroom serve` as a user starts it: one line when it is ready, one line for each reason why it cannot start."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import yaml
from PIL import Image

from tests.docs.blocks import ROOT
from tests.ray.conftest import free_port

START_SECONDS, STOP_SECONDS = 180, 60
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}


def serve(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in an empty folder; its two streams are written to `out` and `err` there."""
    command = [sys.executable, "-m", "serve_app", "serve", *arguments]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err, text=True)


def refused(folder: Path, *arguments: str) -> str:
    """What a command that cannot start says on standard error."""
    process = serve(folder, *arguments)
    try:
        assert process.wait(START_SECONDS) == 1, (folder / "err").read_text()
    finally:
        process.kill()
    assert (folder / "out").read_text() == ""
    return (folder / "err").read_text()


def test_the_built_in_model_is_served_and_nothing_is_left_behind(tmp_path: Path) -> None:
    port = free_port()
    process = serve(tmp_path, "--port", str(port))
    try:
        deadline = time.monotonic() + START_SECONDS
        while "is ready" not in (tmp_path / "out").read_text():
            assert process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline, (tmp_path / "err").read_text()
            time.sleep(0.2)
        assert (tmp_path / "out").read_text() == f"Darkroom is ready: http://127.0.0.1:{port} (docs at /docs)\n"
        assert (tmp_path / "err").read_text() == ""
        answer = httpx.post(f"http://127.0.0.1:{port}/txt2img/", json={"prompt": "red apple"}, timeout=60)
        assert Image.open(io.BytesIO(answer.content)).size == (128, 128)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
        assert psutil.wait_procs(children, timeout=STOP_SECONDS)[1] == []
    finally:
        process.kill()


def test_a_cluster_without_gpus_is_one_line(tmp_path: Path) -> None:
    lines = refused(tmp_path, str(ROOT / "configs" / "prod.yaml"), "--port", str(free_port())).splitlines()
    assert lines[0].startswith("the cluster lacks GPUs: the config needs 2 (")
    assert len(lines) <= 2


def test_a_model_that_cannot_be_loaded_is_named_with_its_reason(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    model = next(one for one in document["applications"][0]["deployments"] if one["name"] == "model-emoji")
    model["user_config"]["source"] = "/no/such/model"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    lines = refused(tmp_path, str(path), "--port", str(free_port())).splitlines()
    assert "deployments.model-emoji" in lines[0]
    assert "/no/such/model" in lines[0]
    assert len(lines) <= 2


def test_a_port_in_use_and_a_mistake_are_told_before_ray_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(tmp_path, "--port", str(port)) == (
            f"http_options.port: 127.0.0.1:{port} cannot be used (Address already in use)\n"
        )
    path = tmp_path / "config.yaml"
    path.write_text("proxy_lction: HeadOnly\napplications: []\n")
    assert refused(tmp_path, str(path)) == f"{path}: proxy_lction: is not a key; did you mean proxy_location?\n"
