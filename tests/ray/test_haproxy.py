"""HAProxy as the front end and handles that call by gRPC, as in production, on one server of `darkroom serve`."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from serve_app.config.ray_environment import production_environment
from tests.cli.config_files import CONFIGS, Section, deployment, write_changed
from tests.ray.conftest import free_port
from tests.ray.test_darkroom_serve import end, wait_until_ready

LONG = {"prompt": "red apple", "num_inference_steps": 140, "sampler": "euler", "width": 384, "height": 384}
DRAWS, RESTS = 40, 25
"""Per cent of a CPU that a replica uses while it draws, and while it does not."""


def change(document: Section) -> None:
    document["applications"][0]["args"]["models"]["emoji"] = {"num_cpus": 0.5}
    deployment(document, "ingress")["user_config"]["max_body_bytes"] = 5000
    deployment(document, "ingress")["user_config"]["models"]["emoji"]["deadline_s"] = 3600
    deployment(document, "model-emoji")["user_config"]["cpu_threads"] = 1


class Server:
    """A running `darkroom serve`."""

    def __init__(self, process: subprocess.Popen[str], port: int, folder: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        return httpx.Client(base_url=self.url, transport=httpx.HTTPTransport(local_address=address), timeout=120)

    def replica(self, deployment: str) -> psutil.Process:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(one for one in children if f"ServeReplica:darkroom:{deployment}" in command_of(one))

    def callers(self) -> list[str]:
        """Whose requests for images the access log has."""
        lines = re.findall(r'\{"request_id".*\}', (self.folder / "err").read_text())
        return [one["key"] for one in map(json.loads, lines) if one["method"] == "POST"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("haproxy"), free_port()
    path = write_changed(folder / "config.yaml", change)
    environment = {name: value for name, value in os.environ.items() if name not in production_environment()}
    environment |= {"PYTHONPATH": str(CONFIGS.parent), "HF_HUB_OFFLINE": "1", "RAY_AUTH_MODE": "disabled"}
    options = ["--front-end", "haproxy", "--port", str(port), "--verbose"]
    command = [sys.executable, "-m", "serve_app", "serve", str(path), *options]
    with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err, text=True)
    try:
        wait_until_ready(process, folder)
        yield Server(process, port, folder)
        end(process, signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def command_of(process: psutil.Process) -> str:
    """Empty where the process has ended."""
    try:
        return "".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"


def draws(server: Server) -> bool:
    return server.replica("model-emoji").cpu_percent(1.0) > DRAWS


def rests(server: Server) -> bool:
    return server.replica("model-emoji").cpu_percent(1.0) < RESTS


def test_images_streams_and_refusals(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/txt2img/", json={"prompt": "red apple", "num_inference_steps": 2})
        assert Image.open(io.BytesIO(answer.content)).size == (128, 128)
        body = {"prompt": "red apple", "num_inference_steps": 4, "previews": 2}
        stream = client.post("/v1/generate", json=body, headers={"Accept": "text/event-stream"})
        events = re.findall("(?m)^event: (.*)$", stream.text)
        assert (events[0], events[-1]) == ("queued", "done")
        large = client.post("/v1/images/generations", content=b"{" + b" " * 6000)
        assert (large.status_code, large.headers["x-error"]) == (413, "body_too_large")
        assert "message" in large.json()["error"]
        wrong = client.post("/txt2img/", json={"prompt": "x", "width": 0})
        assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "width")


def test_a_caller_has_the_address_of_its_connection_whatever_it_says(server: Server) -> None:
    with server.client("127.0.0.3") as client:
        told = {"X-Forwarded-For": "203.0.113.9"}
        assert client.post("/txt2img/", json={"prompt": "x", "num_inference_steps": 1}, headers=told).status_code == 200
    wait_until(lambda: "anyone@127.0.0.3" in server.callers())
    assert "203.0.113.9" not in " ".join(server.callers())


def test_a_hang_up_and_a_delete_free_the_rows(server: Server) -> None:
    with server.client() as client:
        with client.stream("POST", "/v1/generate", json=LONG, headers={"Accept": "text/event-stream"}) as stream:
            lines = stream.iter_lines()  # its end would hang up
            assert next(lines) == "event: queued"
            wait_until(lambda: draws(server))
        wait_until(lambda: rests(server), 20)
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(client.post, "/v1/generate", json={**LONG, "id": "mine"})
            wait_until(lambda: draws(server))
            assert client.delete("/v1/generate/mine").json() == {"id": "mine", "stopped": 1}
            assert answer.result().status_code == 409
        wait_until(lambda: rests(server), 20)


def test_a_killed_ingress_leaves_no_rows_and_is_back_soon(server: Server) -> None:
    with server.client() as client, ThreadPoolExecutor() as pool:
        answer = pool.submit(client.post, "/v1/generate", json=LONG)
        wait_until(lambda: draws(server))
        server.replica("ingress").kill()
        with suppress(httpx.TransportError):  # the connection ends, or HAProxy answers
            assert answer.result().status_code >= 500
        wait_until(lambda: rests(server), 20)

        def answers() -> bool:
            try:
                return client.post("/txt2img/", json={"prompt": "x", "num_inference_steps": 1}).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers)
