"""A request that ends every replica that draws it: it alone gets an error."""

import json
import time

import pytest

from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.faulty_steps import Condition
from tests.ray.faults.processes import MODEL, replicas_of

MOST_DEATHS = 3


@pytest.mark.parametrize("replicas", [2, 1])
def test_poison_ends_three_replicas_at_most_and_its_neighbours_are_delivered(faults: Faults, replicas: int) -> None:
    faults.use(replicas=replicas)
    expected = faults.undisturbed(range(8))
    # Before its first step, so that it passes no resume point on a slow machine either.
    faults.arm("poison", Condition(prompt="poison", step=0))
    seen = set(replicas_of(MODEL))
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=4, step=2)
    (poison,) = faults.callers.send([99], prompt="poison")
    while not all(call.done() for call in (*calls, poison)):
        seen.update(replicas_of(MODEL))
        time.sleep(0.2)
    faults.disarm()
    answer = poison.result()
    assert (answer.status, json.loads(answer.content)["error"]["code"]) == (500, "poisoned")
    check_delivered(results(calls), expected)
    faults.use(replicas=replicas)
    seen.update(replicas_of(MODEL))
    assert len(seen) - replicas <= MOST_DEATHS
