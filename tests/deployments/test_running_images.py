"""One image and the streams that read it: who may join, when it ends, and what stays of it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from serve_app.deployments import running_images, stream_leases
from serve_app.deployments.running_images import RunningImage, RunningImages, Tell
from serve_app.deployments.stream_leases import Stream, StreamLeases
from serve_app.engine.image_future import ImageFuture
from serve_app.errors import Cancelled, GenerationFailed, InvalidRequest, ReplicaFull
from serve_app.requests.events import Progress
from tests.deployments.fake_replicas import IMAGE, ask, point, settle, until

Run = Callable[[Callable[["Engine"], Coroutine[Any, Any, None]]], None]


class Engine:
    """Takes images and never draws one by itself."""

    def __init__(self) -> None:
        self.images = RunningImages()
        self.futures: list[ImageFuture] = []
        self.tells: list[Tell] = []
        self.refusal: InvalidRequest | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def submit(self, tell: Tell) -> ImageFuture:
        await self.go.wait()
        if self.refusal is not None:
            raise self.refusal
        self.tells.append(tell)
        self.futures.append(ImageFuture())
        return self.futures[-1]

    def read(self, key: str = "k/0", prompt: str = "x", watched: bool = False) -> "Reading":
        return Reading(self.images.open(key, ask(prompt), self.submit), watched)


class Reading:
    """Reads an image in the background. `stop` is what closing its stream does."""

    def __init__(self, image: RunningImage, watched: bool) -> None:
        self.image = image
        self.events: list[Any] = []
        self.buffer: Any = None
        self.task = asyncio.ensure_future(self._read(watched))

    async def _read(self, watched: bool) -> Any:
        with self.image.reading(watched) as self.buffer:
            await self.image.submitted()
            async for event in self.buffer.read():
                self.events.append(event)
            return self.image.result()

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run an async test where a lease takes a fifth of a second."""
    monkeypatch.setattr(running_images, "LEASE_SECONDS", 0.2)

    def run_test(test: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            await asyncio.wait_for(test(Engine()), 30)

        asyncio.run(main())

    return run_test


def test_a_second_stream_joins_and_both_get_events_and_the_image(run: Run) -> None:
    async def test(engine: Engine) -> None:
        first = engine.read(watched=True)
        await settle()
        engine.tells[0](point(3))
        await settle()
        second, third = engine.read(watched=True), engine.read()
        await settle()
        engine.tells[0](Progress(4, 9))
        engine.tells[0](point(6))
        await settle()
        engine.futures[0].settle(IMAGE)
        assert [await one.task for one in (first, second, third)] == [IMAGE] * 3
        assert first.events == [point(3), Progress(4, 9), point(6)]
        assert second.events == [point(3), Progress(4, 9), point(6)], "the last resume point is told again"
        assert third.events == [point(3), point(6)]
        assert len(engine.futures) == 1

    run(test)


def test_it_ends_when_its_last_stream_is_dropped_and_not_before(run: Run) -> None:
    async def test(engine: Engine) -> None:
        first, second = engine.read(), engine.read()
        await settle()
        engine.images.drop("k/0")
        await first.stop()
        await settle()
        assert not engine.futures[0].cancelled()
        await second.stop()
        await settle()
        assert engine.futures[0].cancelled()
        assert engine.images.find(["k/0"]) == []

    run(test)


def test_whose_stream_breaks_off_may_come_back_within_the_lease(run: Run) -> None:
    """gRPC ends a stream when the ingress replica dies. The replica cannot tell that from a caller who hangs up."""

    async def test(engine: Engine) -> None:
        first = engine.read()
        await settle()
        await first.stop()
        await asyncio.sleep(0.1)
        assert engine.images.find(["k/0", "k/1"]) == ["k/0"]
        second = engine.read()
        await asyncio.sleep(0.3)
        assert not engine.futures[0].cancelled(), "it is read"
        await second.stop()
        await until(lambda: engine.futures[0].cancelled())
        assert engine.images.find(["k/0"]) == []

    run(test)


def test_a_drop_ends_what_is_read_by_nobody_at_once_and_an_image_without_key_needs_none(run: Run) -> None:
    async def test(engine: Engine) -> None:
        for key in ("k/0", ""):
            reading = engine.read(key)
            await settle()
            await reading.stop()
            engine.images.drop("k/0")
            await settle()
        assert [future.cancelled() for future in engine.futures] == [True, True]

    run(test)


def test_a_silent_ingress_replica_ends_its_stream_but_not_anothers_image(run: Run) -> None:
    async def test(engine: Engine) -> None:
        orphan, other = engine.read(), engine.read()
        await settle()
        orphan.image.end_reading(orphan.buffer)
        with pytest.raises(Cancelled):
            await orphan.task
        assert not engine.futures[0].cancelled()
        other.image.end_reading(other.buffer)
        await settle()
        assert engine.futures[0].cancelled()

    run(test)


def test_a_finished_image_can_be_had_for_a_lease_and_a_failed_one_not(run: Run) -> None:
    async def test(engine: Engine) -> None:
        first = engine.read()
        await settle()
        engine.futures[0].settle(IMAGE)
        await first.task
        assert await engine.read().task == IMAGE
        await asyncio.sleep(0.3)
        assert engine.images.find(["k/0"]) == []
        readings = [engine.read(), engine.read()]
        await settle()
        engine.futures[1].settle(GenerationFailed("no luck"))
        for reading in readings:
            with pytest.raises(GenerationFailed):
                await reading.task
        await settle()
        assert engine.images.find(["k/0"]) == []

    run(test)


def test_another_request_with_the_key_is_an_image_of_its_own(run: Run) -> None:
    async def test(engine: Engine) -> None:
        readings = [engine.read(prompt="x"), engine.read(prompt="y")]
        await settle()
        for future in engine.futures:
            future.settle(IMAGE)
        await asyncio.gather(*(reading.task for reading in readings))
        assert len(engine.futures) == 2

    run(test)


def test_a_refusal_reaches_all_and_leaving_meanwhile_submits_nothing(run: Run) -> None:
    async def test(engine: Engine) -> None:
        engine.go.clear()
        reading = engine.read()
        await settle()
        await reading.stop()
        engine.images.drop("k/0")
        await settle()
        engine.go.set()
        await settle()
        assert engine.futures == []
        engine.refusal = InvalidRequest("x", 1, "must be 2")
        for reading in [engine.read(), engine.read()]:
            with pytest.raises(InvalidRequest):
                await reading.task

    run(test)


def test_an_image_that_lingers_without_a_stream_is_no_empty_replica() -> None:
    async def test() -> None:
        engine = Engine()
        leases = StreamLeases(unread_share=engine.images.unread_share)
        image = engine.images.open("k/0", ask("x"), engine.submit, share=0.5)
        with image.reading(False):
            assert leases.batches == 0.0, "its stream counts"
            await image.submitted()
        assert leases.batches == 0.5
        with (
            pytest.raises(ReplicaFull, match="must run alone"),
            leases.hold(Stream("b", 0.5, suspect=True, alone=True)),
        ):
            pass
        engine.futures[0].settle(IMAGE)
        await until(lambda: leases.batches == 0.0)
        image.drop()

    asyncio.run(test())


def test_a_replica_refuses_new_work_beyond_its_room_and_resumed_work_never() -> None:
    leases = StreamLeases()
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(leases.hold(Stream("a", 1.0)))
        with pytest.raises(ReplicaFull, match="as many requests"):
            held.enter_context(leases.hold(Stream("a", 0.5)))
        held.enter_context(leases.hold(Stream("b", 0.5, resumed=True)))
        assert leases.batches == 3.5


def test_nothing_joins_a_suspect_until_its_ingress_has_heard_of_its_resume_point() -> None:
    now = 100.0
    leases = StreamLeases(lambda: now)
    suspect = Stream("a", 0.5, resumed=True, suspect=True)
    other = Stream("b", 0.5, resumed=True, suspect=True)
    with leases.hold(suspect):
        for passed in (0.0, stream_leases.TOLD_SECONDS - 0.1):
            leases.note(suspect, point(3))
            now = 100.0 + passed
            with pytest.raises(ReplicaFull, match="nothing may join"), leases.hold(other):
                pass
        now = 100.0 + stream_leases.TOLD_SECONDS
        with leases.hold(other):
            assert leases.batches == 1.0


def test_a_process_that_stood_still_ends_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_leases, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(stream_leases, "LOOK_SECONDS", 0.01)

    async def test() -> None:
        ended: list[int] = []
        leases = StreamLeases()
        watcher = asyncio.create_task(stream_leases.watch_leases(leases, ended.append))
        with leases.hold(Stream("a", 0.5)):
            leases.renew("a", 0.0)
            await asyncio.sleep(0.05)
            time.sleep(0.3)
            await asyncio.sleep(0.005)
            leases.renew("a", 0.0)
            await asyncio.sleep(0.05)
            assert sum(ended) == 0
            await until(lambda: sum(ended) > 0)
        watcher.cancel()

    asyncio.run(test())
