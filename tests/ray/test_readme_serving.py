"""README's main job as a user does it: `serve run configs/local.yaml`, then its curl line."""

import base64
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image

from tests.compare_images import named_background
from tests.ray.conftest import free_port
from tests.test_readme import ROOT, blocks

START_SECONDS = 180


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    """`serve run` over local.yaml on a port of its own and a cluster of its own."""
    config = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    port = config["http_options"]["port"] = free_port()
    path = tmp_path / "local.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = {**os.environ, "RAY_ADDRESS": "local", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(Path(sys.executable).with_name("serve")), "run", str(path)]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(server, port, tmp_path / "log")
            yield port
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)


def wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def at(port: int, block: str) -> str:
    """The block, for the server of this test."""
    there = block.replace("localhost:8000", f"127.0.0.1:{port}")
    return there.replace('"localhost", port=8000', f'"127.0.0.1", port={port}')


def test_curl_and_the_clients_get_pictures(served: int, tmp_path: Path) -> None:
    for block in blocks("bash"):
        command = at(served, block)
        subprocess.run(["bash", "-ec", command.replace("curl ", "curl -sS --fail ", 1)], cwd=tmp_path, check=True)
    apple = (tmp_path / "apple.png").read_bytes()
    assert Image.open(io.BytesIO(apple)).size == (128, 128)
    # README's line names no seed: each run draws another picture, in another shade of blue.
    assert named_background(apple) == "blue"
    events = (tmp_path / "events.txt").read_text()
    assert events.count("event: image") == 2
    assert events.rstrip().rpartition("event: ")[2].startswith("done")
    for block in blocks("py"):
        found: dict[str, object] = {}
        exec(compile(at(served, block), "README.md", "exec"), found)
        image = found["image"]
        picture = image if isinstance(image, Image.Image) else Image.open(io.BytesIO(base64.b64decode(str(image))))
        assert picture.size == (128, 128)
