"""The servers under test, each in processes of its own, all on the same model and machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).parents[1]
START_SECONDS, STOP_SECONDS = 300, 30
DEPLOYMENTS = ("ingress", "model-emoji")


@dataclass(frozen=True)
class Contender:
    """A server that is up: `POST {url}/txt2img/`. `group` is its process group, None for those that share Ray's."""

    name: str
    url: str
    group: int | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let it run: the others' groups are stopped, as some of them poll even when nobody calls."""
        if self.group is None:
            yield
            return
        os.killpg(self.group, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.group, signal.SIGSTOP)


def free_port() -> int:
    """Outside Ray's worker range."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port > 20000:
            return port


@contextmanager
def run_contenders(model: dict[str, Any], folder: Path) -> Iterator[list[Contender]]:
    """All of them, ready. `model` is the `user_config` of Darkroom's model; logs and converted weights go to `folder`.

    Darkroom and the `@serve.batch` peer are two applications of one Ray cluster, which is started here.
    """
    source = model["source"]
    peers = {
        "FastAPI + diffusers": ["benchmarks.peers.fastapi_diffusers"],
        "LitServe": ["benchmarks.peers.litserve_batch"],
        "OpenVINO GenAI": ["benchmarks.peers.openvino_genai", "--folder", str(folder / "openvino")],
    }
    with ExitStack() as stack:
        port = free_port()
        config = folder / "serve.yaml"
        config.write_text(yaml.safe_dump(serve_config(model, port)))
        serve = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
        stack.enter_context(run(serve, folder / "ray.log"))
        paths = {"Darkroom": "", "Ray @serve.batch": "/batch"}
        up = [Contender(name, f"http://127.0.0.1:{port}{path}") for name, path in paths.items()]
        for contender in up:
            wait_until_ready(contender.url)
        for name, arguments in peers.items():
            port = free_port()
            command = [sys.executable, "-m", *arguments, "--port", str(port), "--model", source]
            group = stack.enter_context(run(command, folder / f"{arguments[0]}.log"))
            up.append(Contender(name, f"http://127.0.0.1:{port}", group))
            wait_until_ready(up[-1].url)
            os.killpg(group, signal.SIGSTOP)
        yield up


def serve_config(model: dict[str, Any], port: int) -> dict[str, Any]:
    """Darkroom as `configs/local.yaml` has it, with this model, and the peer beside it."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    config["http_options"]["port"] = port
    application = config["applications"][0]
    ingress, replicas = ({one["name"]: one for one in application["deployments"]}[name] for name in DEPLOYMENTS)
    emoji = ingress["user_config"]["models"]["emoji"]
    emoji |= {"limits": {"max_pixels": model["native_size"] ** 2}, "max_waiting": 1000}
    replicas |= {"user_config": model}
    peer = {"name": "batch", "route_prefix": "/batch", "import_path": "benchmarks.peers.ray_batch:build"}
    config["applications"].append({**peer, "args": {"source": model["source"]}})
    return config


@contextmanager
def run(command: Sequence[str], log: Path) -> Iterator[int]:
    """A server's process group, ended with the context; on a Ray cluster of its own where it needs one.

    Ray's workers are as nice as everybody, where by default they give way to any other process.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_ADDRESS": "local",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # LitServe's workers outlive their server
            process.wait()


def wait_until_ready(url: str) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{url} is not up after {START_SECONDS} s")
