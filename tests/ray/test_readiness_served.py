"""`/readyz` names a model whose only replica was killed, and is well again when another one is up."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import ray
from ray.util import list_named_actors

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy


def kill_replica(deployment: str) -> None:
    """End the process of a deployment's only replica."""
    names = [one["name"] for one in list_named_actors(all_namespaces=True) if f"#{deployment}#" in one["name"]]
    assert len(names) == 1
    ray.kill(ray.get_actor(names[0], namespace="serve"))


def wait_for(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    deadline = time.monotonic() + 60
    while (answer := ask()).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    return answer


def test_a_dead_model_is_named_until_another_replica_is_up(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"one": tiny_model(tiny_sd), "two": tiny_model(tiny_sd)}))
    wait_for(lambda: client.get("/readyz"), 200)
    kill_replica("model-two")
    answer = wait_for(lambda: client.get("/readyz"), 503)
    assert answer.json()["error"]["code"] == "not_ready"
    assert answer.json()["error"]["message"].endswith("two")
    assert client.get("/healthz").status_code == 200
    assert client.post("/txt2img/", json={"prompt": "x", "model": "one"}).status_code == 200, "the other one works"
    wait_for(lambda: client.get("/readyz"), 200)
    assert client.post("/txt2img/", json={"prompt": "x", "model": "two"}).status_code == 200
