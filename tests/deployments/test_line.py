"""Waiting for a replica: places, pace and leaving."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from serve_app.deployments import queues as module
from serve_app.deployments.queues import ModelQueue
from serve_app.errors import Cancelled, Overloaded
from serve_app.requests.events import Event, Progress, Queued
from serve_app.requests.request import CallerContext


class Replica:
    """Answers when it is let; knows whether its caller has gone."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go = asyncio.Event()
        self.error = error
        self.gone = False

    async def events(self) -> AsyncIterator[Event]:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.gone = True
            raise
        if self.error is not None:
            raise self.error
        yield Queued(0, 0.0)
        yield Progress(1, 2)


def test_those_behind_hear_their_place_whenever_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    now = [0.0]

    async def run() -> None:
        line, replicas = ModelQueue(lambda: now[0]), [Replica(), Replica(), Replica()]
        streams = [
            line.wait(replica.events(), CallerContext(f"task-{index}", "me")) for index, replica in enumerate(replicas)
        ]
        assert [await anext(stream) for stream in streams] == [Queued(0, 0.0), Queued(1, 0.0), Queued(2, 0.0)]
        now[0] = 4.0
        replicas[0].go.set()
        assert await anext(streams[0]) == Queued(0, 0.0), "the replica's own"
        assert [await anext(stream) for stream in streams[1:]] == [Queued(0, 4.0), Queued(1, 8.0)]
        now[0] = 6.0
        replicas[1].go.set()
        assert await anext(streams[1]) == Queued(0, 0.0)
        assert await anext(streams[2]) == Queued(0, 0.8 * 4 + 0.2 * 2)
        replicas[2].go.set()
        assert [event async for event in streams[2]] == [Queued(0, 0.0), Progress(1, 2)]

    asyncio.run(asyncio.wait_for(run(), 30))


def test_one_may_leave_ones_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)

    async def run() -> None:
        line, replica = ModelQueue(), Replica()
        async with aclosing(line.wait(replica.events(), CallerContext("mine", "me"))) as stream:  # pyright: ignore
            assert await anext(stream) == Queued(0, 0.0)
            assert line.leave("mine", "you") == 0
            assert line.leave("mine", "me") == 1
            assert line.leave("mine", "me") == 0, "gone already"
            with pytest.raises(Cancelled):
                await anext(stream)
        assert replica.gone
        assert not line.find("mine", "me")

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_refusal_says_nothing_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    now = [0.0]

    async def run() -> None:
        line, refused, waiting = ModelQueue(lambda: now[0]), Replica(Overloaded(5)), Replica()
        first, second = (line.wait(one.events(), CallerContext()) for one in (refused, waiting))
        assert await anext(first) == Queued(0, 0.0)
        assert await anext(second) == Queued(1, 0.0)
        now[0] = 9.0
        refused.go.set()
        with pytest.raises(Overloaded):
            await anext(first)
        assert await anext(second) == Queued(0, 0.0)
        await second.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        assert waiting.gone

    asyncio.run(asyncio.wait_for(run(), 30))
