"""Errors of a device and of Ray: no caller gets them, and a replica whose device is broken draws nothing more."""

from typing import Any

from ray.exceptions import ObjectLostError

from serve_app.deployments import image_run
from serve_app.requests.events import ResumePoint
from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.faulty_steps import Condition
from tests.ray.faults.processes import INGRESS, MODEL, ask, ask_servable, pid_of, pids_of, replicas_of
from tests.ray.test_serving import wait_until


def test_a_replica_whose_device_is_lost_gets_no_further_image(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(16))
    broken = pids_of(MODEL)[0]
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=5)
    faults.arm("device", Condition(pid=broken))
    wait_until(lambda: not (faults.folder / "device").exists())
    done = len([one for one in faults.steps() if one.pid == broken])
    calls += faults.callers.send(range(8, 16))
    check_delivered(results(calls), expected)
    assert len([one for one in faults.steps() if one.pid == broken]) <= done + 1
    wait_until(lambda: broken not in pids_of(MODEL))


def test_a_device_whose_memory_is_full_takes_fewer_rows(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(8))
    full = next(iter(replicas_of(MODEL).values()))
    faults.arm("memory", Condition(pid=pid_of(full)))
    check_delivered(results(faults.callers.send(range(8))), expected)
    assert ask_servable(full, "counters").out_of_memory == 1
    assert faults.redone() == []


def test_an_event_that_is_lost_between_nodes_is_no_error_for_the_caller(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(8))
    ingresses = list(replicas_of(INGRESS).values())
    for actor in ingresses:
        ask(actor, lose_objects, 3)
    check_delivered(results(faults.callers.send(range(8))), expected)
    assert sum(ask(actor, lose_objects, 0) for actor in ingresses) < 6, "some were lost"


def lose_objects(_actor: Any, count: int) -> int:
    """Runs in an ingress replica: the next resume points are lost with their node. Returns how many were not yet."""
    left = [count]
    before = vars(image_run).get("losses_left", [0])
    vars(image_run)["losses_left"] = left
    read = vars(image_run).setdefault("undisturbed_read", image_run.next_or_none)

    async def lossy_read(response: Any) -> Any:
        event = await read(response)
        if left[0] and isinstance(event, ResumePoint):
            left[0] -= 1
            raise ObjectLostError("00" * 28, None, "")
        return event

    image_run.next_or_none = lossy_read
    return before[0]
