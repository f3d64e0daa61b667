"""What operators see of the ingress' queues, and of replicas that are lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from serve_app.config import ModelSettings
from serve_app.deployments import held_gauge, replica_watch
from serve_app.deployments.metrics import ReplicaMetrics
from serve_app.errors import Overloaded, Poisoned
from tests.deployments.fake_metrics import FakeMetrics
from tests.deployments.fake_replicas import IMAGE, Replicas, point, settle, until

AsyncTest = Callable[[FakeMetrics, Callable[..., Replicas]], Coroutine[Any, Any, None]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[AsyncTest], None]:
    """Run an async test. It gets the metrics, and a function that makes replicas by name."""
    monkeypatch.setattr(replica_watch, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(replica_watch, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(replica_watch, "ASK_SECONDS", 0.2)

    def run_test(test: AsyncTest) -> None:
        async def main() -> None:
            found = FakeMetrics(monkeypatch)
            await asyncio.wait_for(test(found, lambda *names, **more: Replicas(monkeypatch, *names, **more)), 60)

        asyncio.run(main())

    return run_test


def test_every_counter_stands_at_zero_from_the_start(run: Callable[[AsyncTest], None]) -> None:
    async def test(found: FakeMetrics, make: Callable[..., Replicas]) -> None:
        make()
        assert found.values == {}
        assert found.names == {"queue_refusals", "resumes", "replicas_given_up", "convictions", "hand_overs"}

    run(test)


def test_what_waits_is_told(run: Callable[[AsyncTest], None]) -> None:
    async def test(found: FakeMetrics, make: Callable[..., Replicas]) -> None:
        replicas = make("a")
        await until(lambda: replicas.queue.fleet.curve is not None)
        replicas.submit(*"123456")
        await settle()
        replicas.queue.use(ModelSettings(deadline_s=77))
        await settle()
        assert found.values[("waiting_images",)] == 2
        assert found.values[("waiting_seconds",)] == pytest.approx(2.0), "two images of ten steps, half a batch each"
        assert found.values[("estimated_wait_seconds",)] >= 2.0
        assert found.values[("deadline_seconds",)] == 77

    run(test)


def test_refusals_have_a_reason(run: Callable[[AsyncTest], None]) -> None:
    async def test(found: FakeMetrics, make: Callable[..., Replicas]) -> None:
        replicas = make("a")
        await until(lambda: replicas.queue.fleet.curve is not None)
        replicas.queue.settings = ModelSettings(max_waiting=2)
        with pytest.raises(Overloaded):
            replicas.submit(*"123")
        replicas.queue.settings = ModelSettings(deadline_s=0.5)
        with pytest.raises(Overloaded):
            replicas.submit(*"12")
        assert found.values == {("queue_refusals", "queue_full"): 3, ("queue_refusals", "deadline"): 2}

    run(test)


def test_a_replica_that_dies_counts_once_and_each_of_its_images_is_a_resume(run: Callable[[AsyncTest], None]) -> None:
    async def test(found: FakeMetrics, make: Callable[..., Replicas]) -> None:
        replicas = make("a")
        readers = replicas.submit(*"12")
        await until(lambda: len(replicas.all["a"].running) == 2)
        replicas.all["a"].streams[0].put(ActorDiedError())
        await until(lambda: ("resumes", "died") in found.values and found.values[("resumes", "died")] == 2)
        assert found.values[("replicas_given_up", "died")] == 1
        replicas.tell("b")
        for count in (1, 2):
            await until(lambda count=count: len(replicas.all["b"].streams) == count)
            replicas.all["b"].streams[-1].put(point(3), IMAGE)
        assert [await reader.task for reader in readers] == [IMAGE] * 2
        assert ("convictions",) not in found.values

    run(test)


@pytest.mark.parametrize("fault", ["silent", "hung_step"])
def test_a_replica_is_given_up_with_a_reason(run: Callable[[AsyncTest], None], fault: str) -> None:
    async def test(found: FakeMetrics, make: Callable[..., Replicas]) -> None:
        replicas = make("a")
        replicas.submit("1")
        await until(lambda: replicas.all["a"].running)
        replica = replicas.all["a"]
        replica.is_silent = fault == "silent"
        if fault == "hung_step":
            replica.load = replica.load.__class__(curve=replica.load.curve, step_age_s=11.0, step_limit_s=10.0)
        await until(lambda: found.values.get(("replicas_given_up", fault)) == 1)
        await until(lambda: found.values.get(("resumes", fault)) == 1)

    run(test)


def test_hand_overs_and_convictions_are_counted(run: Callable[[AsyncTest], None]) -> None:
    async def test(found: FakeMetrics, make: Callable[..., Replicas]) -> None:
        replicas = make("a", "b")
        readers = replicas.submit("1")
        await until(lambda: replicas.all["a"].running)
        replicas.tell("b")
        await until(lambda: found.values.get(("hand_overs",)) == 1)
        await until(lambda: found.values.get(("resumes", "draining")) == 1)
        for name, successor in (("b", "c"), ("c", "d"), ("d", "e")):
            await until(lambda name=name: replicas.all[name].running)
            replicas.all[name].die()
            replicas.tell(successor)
        with pytest.raises(Poisoned):
            await readers[0].task
        assert found.values[("convictions",)] == 1

    run(test)


def test_the_wait_is_compared_with_its_estimate(run: Callable[[AsyncTest], None]) -> None:
    async def test(found: FakeMetrics, make: Callable[..., Replicas]) -> None:
        now = 100.0
        replicas = make(clock=lambda: now)
        readers = replicas.submit("1")
        readers[0].run.estimated_start_s = 4.0
        await settle()
        now += 6.0
        replicas.tell("a")
        await until(lambda: replicas.all["a"].running)
        replicas.submit("2")
        await until(lambda: len(replicas.all["a"].running) == 2)
        assert found.observed == [pytest.approx(1.5)], "a wait of no time tells nothing"

    run(test)


def test_orphans_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = FakeMetrics(monkeypatch)
    metrics = ReplicaMetrics("m")
    metrics.note_orphans(0)
    metrics.note_orphans(2)
    metrics.close()
    assert found.values == {("orphans",): 2}


def test_a_held_gauge_tells_its_value_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    class Gauge:
        def __init__(self, *_: object) -> None:
            pass

        def set(self, value: float) -> None:
            told.append(value)

    monkeypatch.setattr(held_gauge, "Gauge", Gauge)
    gauge = held_gauge.HeldGauge("x", "y")
    gauge.set_again()
    assert told == [], "nothing is told before the first value"
    gauge.set(1)
    gauge.set_again()
    assert told == [1, 1]
