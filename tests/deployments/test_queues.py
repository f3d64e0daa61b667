"""Waiting for a replica: positions, pace and leaving."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import queues as module
from serve_app.deployments.queues import ModelQueue
from serve_app.errors import Cancelled, Overloaded
from serve_app.requests.events import GeneratedImage, Progress, Queued, ReplicaEvent, ResumePoint, Timings
from serve_app.requests.request import CallerContext

SAVED = ResumePoint(pass_index=0, step_index=3, draws=0, shape=(1,), state=b"")
IMAGE = GeneratedImage(content=b"", format="png", width=1, height=1, seed=1, timings=Timings())
REQUEST: Any = "a request"


class Response:
    """What a streaming handle call returns. It answers when it is let."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.cancelled = False
        self._events = iter([Queued(0, 0.0), Progress(1, 2), IMAGE])

    async def __anext__(self) -> ReplicaEvent:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        try:
            return next(self._events)
        except StopIteration:
            raise StopAsyncIteration from None

    def __aiter__(self) -> "Response":
        return self

    def cancel(self) -> None:
        self.cancelled = True


class Replicas:
    """A deployment handle that keeps its calls."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.generate = SimpleNamespace(remote=self._call)

    def _call(self, *arguments: Any) -> Response:
        self.responses.append(Response(arguments))
        return self.responses[-1]


def stream(queue: ModelQueue, task: str = "", saved: ResumePoint | None = None) -> AsyncGenerator[ReplicaEvent, None]:
    return queue.generate(REQUEST, CallerContext(task=task, owner="me"), saved)


@pytest.fixture(autouse=True)
def quick_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)


def test_those_behind_hear_their_position_whenever_it_changes() -> None:
    now = [0.0]

    async def run() -> None:
        replicas = Replicas()
        queue = ModelQueue(replicas, lambda: now[0])
        streams = [stream(queue, f"task-{index}", SAVED) for index in range(3)]
        assert [await anext(one) for one in streams] == [Queued(0, 0.0), Queued(1, 0.0), Queued(2, 0.0)]
        first, second, third = replicas.responses
        assert third.arguments == (REQUEST, CallerContext(task="task-2", owner="me"), SAVED)
        now[0] = 4.0
        first.go.set()
        assert await anext(streams[0]) == Queued(0, 0.0), "the replica's own"
        assert [await anext(one) for one in streams[1:]] == [Queued(0, 4.0), Queued(1, 8.0)]
        now[0] = 6.0
        second.go.set()
        assert await anext(streams[1]) == Queued(0, 0.0)
        assert await anext(streams[2]) == Queued(0, 0.8 * 4 + 0.2 * 2)
        third.go.set()
        assert [event async for event in streams[2]] == [Queued(0, 0.0), Progress(1, 2), IMAGE]
        assert not third.cancelled

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_owner_may_leave_their_own_position() -> None:
    async def run() -> None:
        replicas = Replicas()
        queue = ModelQueue(replicas)
        async with aclosing(stream(queue, "mine")) as events:
            assert await anext(events) == Queued(0, 0.0)
            assert queue.leave("mine", "you") == 0
            assert queue.leave("mine", "me") == 1
            assert queue.leave("mine", "me") == 0, "gone already"
            with pytest.raises(Cancelled):
                await anext(events)
        assert replicas.responses[0].cancelled
        assert not queue.find("mine", "me")

    asyncio.run(asyncio.wait_for(run(), 30))


def test_closing_the_stream_cancels_the_call_before_the_image_and_not_after_it() -> None:
    async def run() -> None:
        replicas = Replicas()
        queue = ModelQueue(replicas)
        early, late = stream(queue), stream(queue)
        for one in (early, late):
            await anext(one)
        for response in replicas.responses:
            response.go.set()
        assert await anext(early) == Queued(0, 0.0)
        await early.aclose()
        assert [await anext(late) for _ in range(3)][-1] == IMAGE
        await late.aclose()
        assert [response.cancelled for response in replicas.responses] == [True, False]

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_refusal_says_nothing_of_the_pace() -> None:
    now = [0.0]

    async def run() -> None:
        replicas = Replicas()
        queue = ModelQueue(replicas, lambda: now[0])
        refused, waiting = stream(queue), stream(queue)
        assert await anext(refused) == Queued(0, 0.0)
        assert await anext(waiting) == Queued(1, 0.0)
        now[0] = 9.0
        replicas.responses[0].error = Overloaded(5)
        replicas.responses[0].go.set()
        with pytest.raises(Overloaded):
            await anext(refused)
        assert await anext(waiting) == Queued(0, 0.0)
        await waiting.aclose()
        assert [response.cancelled for response in replicas.responses] == [False, True]

    asyncio.run(asyncio.wait_for(run(), 30))
