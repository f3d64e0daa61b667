"""README's run command as a user gives it, then every block of the pages that talks to a server."""

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
from tests.docs.blocks import ROOT, Block, read_blocks
from tests.ray.conftest import free_port

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
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


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


def at(port: int, block: Block) -> str:
    """The block's text, for the server of this test."""
    there = block.text.replace("localhost:8000", f"127.0.0.1:{port}")
    return there.replace('"localhost", port=8000', f'"127.0.0.1", port={port}')


def test_curl_and_the_clients_get_images(served: int, tmp_path: Path) -> None:
    for block in read_blocks("bash"):
        command = at(served, block).replace("curl ", "curl -sS --fail ", 1)
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    for path in ("apple.png", "rocket.webp"):
        assert Image.open(tmp_path / path).size == (128, 128)
    # README's line names no seed: each run draws another image, in another shade of blue.
    assert named_background((tmp_path / "apple.png").read_bytes()) == "blue"
    for path in ("events.txt", "pizza.txt"):
        events = (tmp_path / path).read_text()
        assert events.count("event: image") == 2
        assert events.count('"preview": "') == 2 * 3
        assert events.rstrip().rpartition("event: ")[2].startswith("done")
    blocks = read_blocks("py")
    assert len(blocks) > 2
    for block in blocks:
        found: dict[str, object] = {}
        exec(compile(at(served, block), str(block), "exec"), found)
        image = found["image"]
        opened = image if isinstance(image, Image.Image) else Image.open(io.BytesIO(base64.b64decode(str(image))))
        assert opened.size == (128, 128)
