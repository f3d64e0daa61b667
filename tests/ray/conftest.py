"""A real Ray cluster for the session, with two logical GPUs, on free ports, ended with the session."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.serve import context
from ray.serve.schema import ServeDeploySchema

from serve_app.config.ray_environment import local_environment
from tests.ray.apps import Section, emoji_application

START_SECONDS = 180
BEAT_SECONDS = 0.05
Deploy = Callable[[Section], httpx.Client]


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
    os.environ.update(local_environment(haproxy=False))
    cluster = ray.init(address="local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield Path(cluster.address_info["session_dir"]) / "logs"
    ray.shutdown()


@pytest.fixture(scope="session")
def base_url(ray_logs: Path) -> Iterator[str]:
    """Serve's HTTP address."""
    port = free_port()
    # The nodes that tests add are on this machine, too, and have its address.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def apply(application: Section) -> None:
    """Give Serve a config, as `serve deploy` does, and wait until it is done or refused.

    Raises:
        RuntimeError: with Serve's messages, where the application cannot be deployed.
    """
    client: Any = context._get_global_client()
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))
    deadline = time.monotonic() + START_SECONDS
    while True:
        status = serve.status().applications["darkroom"]
        if status.status == "RUNNING":
            client.wait_for_proxies_serving(wait_for_applications_running=True)
            return
        messages = [status.message, *(one.message for one in status.deployments.values())]
        if status.status == "DEPLOY_FAILED":
            raise RuntimeError("\n".join(messages))
        assert time.monotonic() < deadline, messages
        time.sleep(BEAT_SECONDS)


@pytest.fixture
def deploy(base_url: str) -> Iterator[Deploy]:
    """Deploy an application; it goes with the test. A second call changes the first one's application."""
    clients: list[httpx.Client] = []

    def run(application: Section) -> httpx.Client:
        apply(application)
        clients.append(httpx.Client(base_url=base_url, timeout=60))
        return clients[-1]

    yield run
    for client in clients:
        client.close()
    serve.delete("darkroom")


@pytest.fixture(scope="module")
def served(base_url: str) -> Iterator[str]:
    """The built-in model with a preset, for all tests of a module; its address."""
    apply(emoji_application(ingress={"presets": {"on-blue": {"prompt": "{subject} on a blue background"}}}))
    yield base_url
    serve.delete("darkroom")
