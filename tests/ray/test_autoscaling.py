"""Replicas follow the work: 1 -> 2 while much waits, 0 -> 1 -> 0 with a cold start that answers those who wait."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ray import serve

from tests.ray.apps import Section, application, tiny_model
from tests.ray.conftest import Deploy

POLICY = "serve_app.deployments.policies.drain_time:DrainTime"


def app(tiny_sd: Path, least: int, most: int) -> Section:
    scaling = {
        "min_replicas": least,
        "max_replicas": most,
        "policy": {"policy_function": POLICY, "policy_kwargs": {"drain_s": 1}},
        "upscale_delay_s": 0.2,
        "downscale_delay_s": 1,
        "metrics_interval_s": 0.2,
        "look_back_period_s": 0.5,
    }
    options = {"model-tiny": {"autoscaling_config": scaling}, "ingress": {"num_replicas": 2}}
    model = tiny_model(tiny_sd, engine={"max_rows": 2})
    return application(
        {"tiny": model}, options=options, ingress={"results": {"url": f"file://{tiny_sd.parent}/results"}}
    )


def count(*states: str) -> int:
    """The replicas of the model in these states; by default those that run."""
    found = serve.status().applications["darkroom"].deployments["model-tiny"].replica_states
    return sum(found.get(state, 0) for state in states or ("RUNNING",))


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_second_replica_comes_with_the_work_and_goes_with_it(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(app(tiny_sd, 1, 2))
    body = {"prompt": "x", "num_inference_steps": 60}
    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(client.post, "/txt2img/", json={**body, "seed": seed}) for seed in range(24)]
        wait_until(lambda: count("RUNNING", "STARTING") == 2)  # on a busy machine the work ends before it has started
        assert {one.result().status_code for one in asked} == {200}
    wait_until(lambda: count() == 1)


def test_those_who_wait_for_a_model_at_zero_are_answered_and_it_goes_back(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(app(tiny_sd, 0, 1))
    wait_until(lambda: count() == 0)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(client.post, "/txt2img/", json={"prompt": "x", "seed": seed}) for seed in range(6)]
        assert [one.result().status_code for one in asked] == [200] * 6
    wait_until(lambda: count() == 0)
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200, "it wakes again"
