"""An ingress replica that is killed: its rows end, its callers' retries join, and others do not notice."""

import time

from serve_app.requests.idempotency import RequestKey
from tests.ray.faults.conftest import Faults, check_delivered, results
from tests.ray.faults.load import Answer
from tests.ray.faults.processes import (
    INGRESS,
    MODEL,
    ask,
    ask_servable,
    count_images,
    kill,
    pid_of,
    pids_of,
    replicas_of,
)
from tests.ray.test_serving import wait_until

KEY = "one"
LEASE_SECONDS = 5
SOME_SECONDS = 3
"""For the machine, which may be busy."""


def test_orphans_end_and_the_other_ingress_replica_answers_at_once(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(12))
    calls = faults.callers.send(range(8))
    faults.wait_for_steps(images=5)
    victim = pids_of(INGRESS)[0]
    kill(victim)
    killed = time.monotonic()
    (fresh,) = results(faults.callers.send([8]))
    check_delivered([fresh], expected)
    answers = results(calls)
    lost = [answer.seed for answer in answers if answer.status != 200]
    check_delivered([answer for answer in answers if answer.status == 200], expected)
    assert 0 < len(lost) < 8, "both ingress replicas had requests"
    wait_until(lambda: sum(ask(actor, count_images) or 0 for actor in replicas_of(MODEL).values()) == 0)
    orphaned = [one.began for one in faults.steps() if one.seed in lost]
    assert max(orphaned) - killed < LEASE_SECONDS + SOME_SECONDS


def test_the_same_idempotency_key_joins_what_a_dead_ingress_replica_had_begun(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed([0])
    call = faults.callers.pool.submit(post_with_key, faults)
    faults.wait_for_steps(images=1)
    kill(find_drawing_pid())
    assert call.result().status != 200
    retry = post_with_key(faults)
    check_delivered([retry], expected)
    assert len(faults.steps()) == faults.num_steps, "drawn once"


def test_requests_are_served_soon_after_every_ingress_replica_was_killed(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed([0])
    kill(*pids_of(INGRESS))
    killed = time.monotonic()
    while faults.callers.post(0, num_inference_steps=1).status != 200:
        assert time.monotonic() - killed < 15
        time.sleep(0.2)
    check_delivered([faults.callers.post(0)], expected)


def post_with_key(faults: Faults) -> Answer:
    """The same request each time."""
    return faults.callers.post(0, headers={"Idempotency-Key": KEY})


def find_drawing_pid() -> int:
    """The ingress replica that has the request."""
    digest = RequestKey.of("anyone@127.0.0.1", KEY).digest
    claims = [(actor, ask_servable(actor, "claim_of", digest, False)) for actor in replicas_of(INGRESS).values()]
    (drawing,) = [actor for actor, claim in claims if claim is not None and claim.state == "drawing"]
    pid = pid_of(drawing)
    assert pid is not None
    return pid
