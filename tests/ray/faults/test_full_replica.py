"""Calls about requests, while every slot and the queue are full: they are answered at once, by any ingress replica."""

import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import httpx

from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.load import PROMPT
from tests.ray.faults.processes import MODEL, count_images, replicas_of
from tests.ray.faults.processes import ask as ask_actor
from tests.ray.test_serving import wait_until

MOST_SECONDS = 1.0
BATCH = 4
TASKS = [f"task-{number}" for number in range(BATCH)]


@dataclass(frozen=True)
class Timed:
    """A response, and what it took."""

    response: httpx.Response
    seconds: float


def ask(faults: Faults, method: str, path: str, body: Any = None) -> Timed:
    """On a connection of its own, so that both ingress replicas are asked."""
    began = time.monotonic()
    response = httpx.request(method, f"{faults.url}{path}", json=body, timeout=60)
    return Timed(response, time.monotonic() - began)


def count_in_flight() -> int:
    """The images in the only replica."""
    (actor,) = replicas_of(MODEL).values()
    return ask_actor(actor, count_images) or 0


def test_delete_and_progress_need_no_slot_at_two_ingress_replicas(faults: Faults) -> None:
    faults.use(replicas=1)
    expected = faults.undisturbed(range(8))
    bodies = [
        {"prompt": PROMPT, "seed": 100 + number, "steps": 140, "force_task_id": task, "width": 128, "height": 128}
        for number, task in enumerate(TASKS)
    ]
    named: list[Future[Timed]] = [
        faults.callers.pool.submit(ask, faults, "POST", "/sdapi/v1/txt2img", body) for body in bodies
    ]
    faults.wait_for_steps(images=BATCH, step=2)
    plain = faults.callers.send(range(8))
    wait_until(lambda: count_in_flight() >= 2 * BATCH)
    progress = [ask(faults, "POST", "/internal/progress", {"id_task": task}) for task in TASKS]
    assert [one.response.json()["active"] for one in progress] == [True] * BATCH, [one.seconds for one in progress]
    assert all(0 < one.response.json()["progress"] < 1 for one in progress)
    deleted = [ask(faults, "DELETE", f"/v1/generate/{task}") for task in TASKS]
    assert [(one.response.status_code, one.response.json()["stopped"]) for one in deleted] == [(200, 1)] * BATCH
    assert max(one.seconds for one in (*progress, *deleted)) < MOST_SECONDS
    assert [call.result().response.status_code for call in named] == [409] * BATCH
    ended = time.monotonic()
    check_delivered(results(plain), expected)
    assert [one for one in faults.steps() if one.seed >= 100 and one.began > ended + MOST_SECONDS] == []
