"""The safety checker is killed while it reviews: it is asked again, and nothing goes out that it has not seen."""

import time

from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.processes import SAFETY, kill, pids_of
from tests.ray.test_serving import wait_until


def test_reviews_of_a_dead_checker_are_asked_again(faults: Faults) -> None:
    faults.use(replicas=2, safety="flag")
    expected = faults.undisturbed(range(8))
    calls = faults.callers.send(range(8))
    wait_until(lambda: len({one.seed for one in faults.steps() if one.step == faults.num_steps - 1}) >= 4)
    time.sleep(0.3)  # the checker takes a second for a batch
    assert not any(call.done() for call in calls)
    kill(*pids_of(SAFETY))
    answers = results(calls)
    assert [answer.headers.get("x-content-flagged") for answer in answers] == ["false"] * 8
    check_delivered(answers, expected)
