"""`Idempotency-Key` over two ingress replicas, on a real cluster: joined, kept, and adopted from a dead one."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import ray

from serve_app.deployments.replica_actor import SERVE_NAMESPACE, call_servable
from serve_app.requests.idempotency import RequestKey
from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.ray.test_serving import counters, wait_until
from tests.ray.test_usage_served import pid_of

BODY = {"prompt": "a cat", "num_inference_steps": 140, "sampler": "heun", "seed": 7, "width": 128, "height": 128}
CALLS = 2 * 140 - 1
"""Model calls of one image: Heun makes two a step, and one in the last."""


def ingresses() -> list[Any]:
    """The actors of the ingress replicas."""
    actors: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    names = [one["name"] for one in actors if one["name"].startswith("SERVE_REPLICA::darkroom#ingress#")]
    return [ray.get_actor(name, namespace=SERVE_NAMESPACE) for name in names]


def states(key: str) -> dict[Any, str | None]:
    """What each ingress replica says of a key."""
    digest = RequestKey.of("anyone@127.0.0.1", key).digest
    claims = {one: ray.get(one.__ray_call__.remote(call_servable, "claim_of", digest, False)) for one in ingresses()}
    return {one: claim.state if claim is not None else None for one, claim in claims.items()}


def test_a_retry_joins_at_every_ingress_replica_and_survives_the_death_of_one(
    deploy: Deploy, tiny_sd: Path, tmp_path: Path
) -> None:
    model = tiny_model(tiny_sd, engine={"max_rows": 8, "deterministic": True})
    ingress = {"results": {"url": str(tmp_path / "results")}}
    client = deploy(application({"tiny": model}, ingress=ingress, options={"ingress": {"num_replicas": 2}}))

    def post(key: str | None, **changes: Any) -> httpx.Response:
        # A connection of its own each time, so that both replicas are reached.
        headers = {"Idempotency-Key": key} if key else {}
        return httpx.post(f"{client.base_url}/txt2img/", json={**BODY, **changes}, headers=headers, timeout=60)

    expected = post(None).content
    with ThreadPoolExecutor(8) as pool:
        before = counters("tiny").steps
        answers = list(pool.map(post, ["together"] * 8))
        answers += pool.map(post, ["together"] * 8)
        assert [answer.status_code for answer in answers] == [200] * 16
        assert {answer.content for answer in answers} == {expected}
        assert counters("tiny").steps - before == CALLS, "drawn once, by whomever"
        assert sorted(states("together").values(), key=str) == [None, "done"]
        assert {post("together", prompt="a dog").status_code for _ in range(4)} == {422}

        before = counters("tiny").steps
        lost = pool.submit(post, "orphan")
        wait_until(lambda: counters("tiny").steps > before + 20)
        (drawing,) = [one for one, state in states("orphan").items() if state == "drawing"]
        pid = pid_of(drawing)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert lost.result().status_code >= 500
        retry = post("orphan")
        assert (retry.status_code, retry.content == expected) == (200, True), retry.text[:200]
        assert counters("tiny").steps - before == CALLS, "the rows went on while there was no ingress replica"
        wait_until(lambda: counters("tiny").rows_in_flight == 0)
        assert post("orphan").content == expected
