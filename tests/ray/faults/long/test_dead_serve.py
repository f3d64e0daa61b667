"""Serve's own processes are killed: its controller, and the proxy."""

import time

from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.processes import MODEL, actors_of, ask, count_images, kill, pid_of, replicas_of
from tests.ray.test_serving import wait_until

MOST_SECONDS = 15


def kill_actor(prefix: str) -> None:
    """Kill the one actor whose name begins so."""
    (actor,) = actors_of(prefix).values()
    pid = pid_of(actor)
    assert pid is not None
    kill(pid)


def wait_for_an_image(faults: Faults) -> None:
    """Until a new request is answered."""
    began = time.monotonic()
    while faults.callers.post(99, num_inference_steps=1).status != 200:
        assert time.monotonic() - began < MOST_SECONDS
        time.sleep(0.2)


def images_in_replicas() -> int:
    """The images that any replica draws."""
    return sum(ask(actor, count_images) or 0 for actor in replicas_of(MODEL).values())


def test_what_runs_ends_and_new_requests_are_served_while_the_controller_is_dead(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(8))
    before = set(replicas_of(MODEL))
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=8)
    kill_actor("SERVE_CONTROLLER_ACTOR")
    wait_for_an_image(faults)
    check_delivered(results(calls), expected)
    faults.use(replicas=2)
    assert set(replicas_of(MODEL)) == before
    assert faults.redone() == []


def test_a_dead_proxy_leaves_no_orphans_and_is_replaced(faults: Faults) -> None:
    faults.use(replicas=2)
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=8)
    kill_actor("SERVE_PROXY_ACTOR")
    killed = time.monotonic()
    assert {answer.status for answer in results(calls)} == {0}, "their connections end"
    wait_for_an_image(faults)
    wait_until(lambda: images_in_replicas() == 0)
    assert max(step.began for step in faults.steps() if step.seed != 99) - killed < 5 + 3
