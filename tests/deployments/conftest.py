"""A real Ray cluster for the session, with two logical GPUs, on free ports, ended with the session."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve

from serve_app.app import build
from serve_app.config import AppConfig

Deploy = Callable[[dict[str, Any]], httpx.Client]


def free_port() -> int:
    """A port nobody listens on now, outside Ray's worker range."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port > 20000:
            return port


@pytest.fixture(scope="session")
def ray_logs() -> Iterator[Path]:
    """A cluster of its own; the folder where its processes write their logs."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    context = ray.init(address="local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield Path(context.address_info["session_dir"]) / "logs"
    ray.shutdown()


@pytest.fixture(scope="session")
def base_url(ray_logs: Path) -> Iterator[str]:
    """Serve's HTTP address."""
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def tiny_model(source: Path, **options: Any) -> dict[str, Any]:
    """A model as a YAML would have it."""
    return {
        "source": str(source),
        "device": "cpu",
        "native_size": 64,
        "cpu_threads": 1,
        "defaults": {"num_inference_steps": 4, "guidance_scale": 5.0, "sampler": "euler"},
        "engine": {"max_rows": 8},
        **options,
    }


@pytest.fixture
def deploy(base_url: str) -> Iterator[Deploy]:
    """Deploy an app from its `args`; the app goes with the test."""
    clients: list[httpx.Client] = []

    def run(args: dict[str, Any]) -> httpx.Client:
        serve.run(build(AppConfig.model_validate(args)), name="darkroom", route_prefix="/")
        clients.append(httpx.Client(base_url=base_url, timeout=60))
        return clients[-1]

    yield run
    for client in clients:
        client.close()
    serve.delete("darkroom")
