"""Twenty kill -9 of a replica under load: nothing fails, nothing differs."""

from concurrent.futures import Future
from itertools import count

from tests.ray.faults.conftest import Faults, check_delivered
from tests.ray.faults.load import Answer
from tests.ray.faults.processes import INGRESS, MODEL, ask, count_able_replicas, kill, pids_of, replicas_of
from tests.ray.test_serving import wait_until

KILLS, CALLERS, SEEDS = 20, 12, 30


def test_twenty_dead_replicas_under_load_cost_no_image(faults: Faults) -> None:
    faults.use(replicas=2)
    expected = faults.undisturbed(range(SEEDS))
    calls: list[Future[Answer]] = []
    seeds = count()

    def keep_busy() -> None:
        while sum(not call.done() for call in calls) < CALLERS:
            calls.extend(faults.callers.send([next(seeds) % SEEDS]))

    def both_run() -> bool:
        keep_busy()
        return [ask(actor, count_able_replicas) for actor in replicas_of(INGRESS).values()] == [2, 2]

    for _ in range(KILLS):
        wait_until(both_run, 90)
        faults.wait_for_new_steps()
        kill(pids_of(MODEL)[0])
        wait_until(lambda: keep_busy() or len(pids_of(MODEL)) == 1, 60)
    answers = [call.result() for call in calls]
    check_delivered(answers, expected)
    assert len(answers) > 3 * KILLS
