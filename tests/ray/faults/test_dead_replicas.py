"""Model replicas that are killed: what was accepted is delivered, equal, and little is done again."""

import pytest

from tests.ray.faults.apps import RESUME_SECONDS
from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.processes import MODEL, kill, pids_of

TRANSIT_SECONDS = 0.5
"""A resume point may be under way when its replica dies, and a dozen processes share two cores."""


@pytest.mark.parametrize("replicas", [2, 1])
def test_a_full_queue_loses_nothing_when_a_replica_is_killed(faults: Faults, replicas: int) -> None:
    faults.use(replicas=replicas)
    expected = faults.undisturbed(range(30))
    faults.use(replicas=replicas, max_waiting=3)
    calls = faults.callers.send(range(30))
    faults.wait_for_steps(images=5 * replicas)
    kill(pids_of(MODEL)[0])
    answers = results(calls)
    refused = [answer for answer in answers if answer.status == 429]
    accepted = [answer for answer in answers if answer.status != 429]
    assert len(accepted) >= 8 * replicas, "the replicas and the queue were full"
    assert refused
    assert max(answer.seconds for answer in refused) < 4, "none was refused after it was accepted"
    check_delivered(accepted, expected)
    redone = faults.redone()
    assert redone, "the replica died while it drew"
    assert [one for one in redone if one.seconds > RESUME_SECONDS + one.longest_s + TRANSIT_SECONDS] == []
