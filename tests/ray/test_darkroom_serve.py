"""`darkroom serve` as a user starts it: one line when it is ready, one line for each reason why it cannot start."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from tests.cli.config_files import CONFIGS, deployment, write_changed
from tests.ray.conftest import free_port

START_SECONDS, STOP_SECONDS = 180, 60
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command in an empty folder. Its streams are written to `out` and `err` there."""
    started: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent), "HF_HUB_OFFLINE": "1"}
    environment["RAY_AUTH_MODE"] = "disabled"

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "serve_app", "serve", *arguments]
        with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=err, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "is ready" not in (folder / "out").read_text():
        assert process.poll() is None, (folder / "err").read_text()
        assert time.monotonic() < deadline, (folder / "err").read_text()
        time.sleep(0.1)


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal. The command and all of its processes must end."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(STOP_SECONDS) == 0
    assert psutil.wait_procs(children, timeout=STOP_SECONDS)[1] == []


def refused(start: Start, folder: Path, *arguments: str) -> list[str]:
    """The lines on standard error of a command that cannot start."""
    assert start(*arguments).wait(START_SECONDS) == 1
    assert (folder / "out").read_text() == ""
    return (folder / "err").read_text().splitlines()


def test_the_built_in_model_is_served_and_nothing_is_left_behind(start: Start, tmp_path: Path) -> None:
    port = free_port()
    process = start("--port", str(port))
    wait_until_ready(process, tmp_path)
    answer = httpx.post(f"http://127.0.0.1:{port}/txt2img/", json={"prompt": "red apple"}, timeout=60)
    assert Image.open(io.BytesIO(answer.content)).size == (128, 128)
    end(process, signal.SIGTERM)
    assert (tmp_path / "out").read_text() == f"Darkroom is ready: http://127.0.0.1:{port} (docs at /docs)\n"
    assert (tmp_path / "err").read_text() == ""


def test_a_signal_ends_it_while_it_starts(start: Start, tmp_path: Path) -> None:
    process = start("--port", str(free_port()), "--verbose")
    while "Log files: " not in (tmp_path / "err").read_text():
        assert process.poll() is None
        time.sleep(0.1)
    logs = next(line for line in (tmp_path / "err").read_text().splitlines() if line.startswith("Log files: "))
    assert Path(logs.removeprefix("Log files: ")).is_dir()
    end(process, signal.SIGINT)
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_what_the_machine_lacks_is_a_line_each(start: Start, tmp_path: Path) -> None:
    path = CONFIGS / "prod.yaml"
    gpus, *others = refused(start, tmp_path, str(path), "--port", str(free_port()))
    assert gpus.startswith(f"{path}: needs 2 GPUs for the replicas that run at start (1 x model-sd15 0.25, ")
    assert gpus.endswith(", this machine has 0")
    assert others[-1] == (
        f"{path}: deployments.ingress.user_config.keys.file: must exist on this machine, got '/etc/darkroom/keys.json'"
    )
    assert all("CPUs" in line for line in others[:-1])


def test_a_model_that_cannot_be_loaded_is_named_with_its_reason(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "model_index.json").write_text("{}")
    path = write_changed(
        tmp_path / "config.yaml",
        lambda document: deployment(document, "model-emoji")["user_config"].update(source=str(source)),
    )
    (line,) = refused(start, tmp_path, str(path), "--port", str(free_port()))
    assert line.startswith(
        f"{path}: deployments.model-emoji.user_config: {source}/model_index.json: _class_name must be"
    )


def test_a_port_in_use_is_told_before_ray_starts(start: Start, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (line,) = refused(start, tmp_path, "--port", str(port))
    assert line.endswith(f"local.yaml: http_options.port: cannot listen at 127.0.0.1:{port}: Address already in use")


def test_mistakes_are_told_before_ray_starts(start: Start, tmp_path: Path) -> None:
    path = write_changed(tmp_path / "config.yaml", lambda document: document.update(proxy_lction="HeadOnly", http={}))
    assert refused(start, tmp_path, str(path)) == [
        f"{path}: proxy_lction: is not a key; did you mean proxy_location?",
        f"{path}: http: is not a key; did you mean http_options?",
    ]
