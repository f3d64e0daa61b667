"""Replicas that neither answer nor die: their images are delivered by others, within half a minute."""

import time

import pytest

from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.processes import MODEL, is_alive, pids_of, stop

MOST_SECONDS = 30


def test_images_of_a_stopped_process_go_on_elsewhere(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(8))
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=5)
    pid = pids_of(MODEL)[0]
    stop(pid)
    struck = time.monotonic()
    answers = results(calls)
    check_delivered(answers, expected)
    assert max(answer.finished for answer in answers) - struck < MOST_SECONDS
    check_ends(pid)


def test_images_of_a_step_that_hangs_go_on_elsewhere(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(8))
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=5)
    pids = pids_of(MODEL)
    faults.arm("hang")
    struck = time.monotonic()
    answers = results(calls)
    check_delivered(answers, expected)
    assert max(answer.finished for answer in answers) - struck < MOST_SECONDS
    (pid,) = {*pids} - {*pids_of(MODEL)}
    check_ends(pid)


def check_ends(pid: int) -> None:
    """The process, and what it holds of the device, does not stay."""
    deadline = time.monotonic() + MOST_SECONDS
    while is_alive(pid):
        if time.monotonic() > deadline:
            pytest.fail("the replica that hangs was not killed")
        time.sleep(0.1)
