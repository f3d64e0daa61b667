"""Progress, interrupts and deletes: the ingress replica that has the task answers, whoever was asked."""

import asyncio
from typing import Any

import pytest

from serve_app.deployments.task_calls import TaskCalls
from serve_app.errors import Cancelled
from serve_app.requests.events import Progress, Queued
from tests.deployments.fake_replicas import Reader, Replicas, until


class OtherIngresses:
    """Asks these, as `Peers` does; each is a `TaskCalls` of another ingress replica."""

    def __init__(self, *others: TaskCalls) -> None:
        self.others = others

    async def ask(self, method: str, *args: Any) -> list[Any]:
        return [await asyncio.to_thread(getattr(other, method), *args) for other in self.others]


async def start(monkeypatch: pytest.MonkeyPatch) -> tuple[Replicas, list[Reader], TaskCalls]:
    """Five images of a task at an ingress whose replica uses four; the calls of another ingress."""
    replicas = Replicas(monkeypatch, "a")
    own = TaskCalls({"m": replicas.queue}, OtherIngresses())
    own.start()
    other = TaskCalls({}, OtherIngresses(own))
    readers = replicas.submit(*"12345")
    await until(lambda: len(replicas.all["a"].running) == 4)
    return replicas, readers, other


def test_another_ingress_ends_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        replicas, readers, other = await start(monkeypatch)
        assert await other.cancel("t", "you") == 0
        assert await other.cancel("t", "me") == 5
        for reader in readers:
            with pytest.raises(Cancelled):
                await reader.task
        assert all(stream.cancelled for stream in replicas.all["a"].streams)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_progress_and_interrupt_reach_the_replica_that_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        replicas, readers, _ = await start(monkeypatch)
        calls = TaskCalls({"m": replicas.queue}, OtherIngresses())
        calls.start()
        asked: list[tuple[Any, ...]] = []

        async def progress_of(*args: Any) -> Progress:
            asked.append(args)
            return Progress(3, 10)

        async def interrupt(*args: Any) -> int:
            asked.append(args)
            return 4

        replica: Any = replicas.all["a"]
        replica.progress_of, replica.interrupt = progress_of, interrupt
        found = await calls.progress_of("t", "me", lambda model: model == "m")
        assert [one for _, one in found if isinstance(one, Progress)] == [Progress(3, 10)]
        assert [one.position for _, one in found if isinstance(one, Queued)] == [0]
        assert asked == [("t", "me", True)]
        assert await calls.interrupt("t", "me") == 5, "one waited and is stopped, four end with their next step"
        with pytest.raises(Cancelled):
            await readers[4].task
        assert not readers[0].task.done()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_replica_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        replicas, _, _ = await start(monkeypatch)
        calls = TaskCalls({"m": replicas.queue}, OtherIngresses())
        calls.start()

        async def hang(*_: Any) -> Progress:
            await asyncio.sleep(600)
            raise AssertionError

        replica: Any = replicas.all["a"]
        replica.progress_of = hang
        found = await asyncio.wait_for(calls.progress_of("t", "me", lambda _: False), 10)
        assert [type(one) for _, one in found] == [Queued]

    asyncio.run(asyncio.wait_for(run(), 30))
