"""Limits over two ingress replicas, on a real cluster: exact, and kept over the death of whoever counts."""

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import ray
from ray.exceptions import RayError

from serve_app.api.keys import new_key
from serve_app.config import UsageConfig
from serve_app.deployments.usage_actor import find_usage_actor
from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy

LONG = {"prompt": "x", "num_inference_steps": 150}


def wait_until(check: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pid_of(actor: Any) -> int | None:
    """The process of an actor; None while it restarts."""
    try:
        return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    except RayError:
        return None


def test_limits_are_exact_over_two_ingress_replicas_and_survive(deploy: Deploy, tiny_sd: Path, tmp_path: Path) -> None:
    limits = {
        "burst": {"rate": 0.01, "burst": 1},
        "three": {"concurrency": 3},
        "device": {"daily_device_seconds": 0.01},
    }
    keys = {name: new_key(name) for name in limits}
    entries = [{**json.loads(entry), **limits[name]} for name, (_, entry) in keys.items()]
    (tmp_path / "keys.json").write_text(json.dumps(entries))
    usage = {"url": f"file://{tmp_path}/usage"}
    client = deploy(
        application(
            {"t": tiny_model(tiny_sd)},
            ingress={"keys": {"file": str(tmp_path / "keys.json")}, "results": {"url": str(tmp_path / "results")}},
            args={"usage": usage},
            options={"ingress": {"num_replicas": 2}},
        )
    )

    def post(name: str, body: dict[str, object]) -> httpx.Response:
        # A connection of its own each time, so that both replicas are reached.
        headers = {"Authorization": f"Bearer {keys[name][0]}"}
        return httpx.post(f"{client.base_url}/v1/generate", json=body, headers=headers, timeout=60)

    with ThreadPoolExecutor(16) as pool:
        statuses = [one.status_code for one in pool.map(lambda _: post("three", LONG), range(12))]
        assert statuses.count(200) == 3, statuses
        assert set(statuses) == {200, 429}
        statuses = [one.status_code for one in pool.map(lambda _: post("burst", {"prompt": "x"}), range(8))]
        assert statuses.count(200) == 1, statuses
        # One after the other, a caller never meets its own last image.
        statuses = [post("three", {"prompt": "x", "num_images": 3}).status_code for _ in range(10)]
        assert set(statuses) == {200}
        assert post("three", {"prompt": "x", "num_images": 4}).status_code == 422

    # A caller that hangs up pays for what it used.
    with httpx.Client(base_url=client.base_url, headers={"Authorization": f"Bearer {keys['device'][0]}"}) as quitter:
        for _ in range(2):
            with quitter.stream("POST", "/v1/generate", json=LONG, headers={"Accept": "text/event-stream"}) as answer:
                lines = answer.iter_lines()
                while next(lines) != "event: progress":
                    pass
            if answer.status_code == 429:
                break
    wait_until(lambda: post("device", {"prompt": "x"}).status_code == 429)

    actor = find_usage_actor(UsageConfig.model_validate(usage), "darkroom")
    pid = pid_of(actor)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    assert post("three", {"prompt": "x"}).status_code == 200, "an ingress does not wait for whoever counts"
    assert time.monotonic() - began < 10
    wait_until(lambda: pid_of(actor) not in (None, pid))
    time.sleep(3)  # until then an ingress that found it away may admit its share
    assert {post("burst", {"prompt": "x"}).status_code for _ in range(4)} == {429}
    assert post("device", {"prompt": "x"}).status_code == 429
