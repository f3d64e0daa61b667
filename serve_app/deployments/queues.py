"""Requests that no replica has taken yet: how many are ahead of each, how long that takes, and how to leave."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from serve_app.errors import Cancelled
from serve_app.requests.events import GeneratedImage, Queued, ReplicaEvent, ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest

BEAT_SECONDS = 0.5
"""How often a waiting caller is told its position, if that has changed."""
PAST_WEIGHT = 0.8
"""The weight of the past in the mean time between two requests that are taken."""


@dataclass(frozen=True, eq=False)
class QueueEntry:
    """One waiting request."""

    task: str
    owner: str
    left: asyncio.Event = field(default_factory=asyncio.Event)


class ModelQueue:
    """The queue for one model on one ingress replica. It makes the handle calls.

    Requests from other ingress replicas are taken in between; the measured pace contains that.

    Args:
        replicas: the model's deployment handle, with `stream=True`.
        clock: seconds that never go back.
    """

    def __init__(self, replicas: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._replicas = replicas
        self._clock = clock
        self._entries: dict[QueueEntry, None] = {}
        self._interval = 0.0
        self._last_taken_at = 0.0

    async def generate(
        self, request: GenerationRequest, context: CallerContext, resume_from: ResumePoint | None = None
    ) -> AsyncGenerator[ReplicaEvent, None]:
        """The events of one replica. Before them, the position in the queue whenever it has changed.

        Closing the iterator stops the replica's work on the request.

        Raises:
            Cancelled: `leave` was called before a replica took the request.
        """
        response = self._replicas.generate.remote(request, context, resume_from)
        entry = self._join(context)
        first, left = asyncio.ensure_future(anext(response)), asyncio.ensure_future(entry.left.wait())
        position: int | None = None
        finished = False
        try:
            while not first.done() and not left.done():
                await asyncio.wait([first, left], timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                queued = self.position_of(entry)
                if not first.done() and not left.done() and queued.position != position:
                    position = queued.position
                    yield queued
            if not first.done():
                raise Cancelled("stopped by its owner")
            taken = first.result()
            self._take(entry)
            yield taken
            async for event in response:
                finished = isinstance(event, GeneratedImage)
                yield event
        except (asyncio.CancelledError, GeneratorExit, Cancelled):
            if not finished:
                response.cancel()
            raise
        finally:
            self._entries.pop(entry, None)
            for waiting in (first, left):
                waiting.cancel()
            await asyncio.gather(first, left, return_exceptions=True)

    def position_of(self, entry: QueueEntry) -> Queued:
        """How many requests are ahead, and in about how many seconds it is taken."""
        ahead = list(self._entries).index(entry)
        return Queued(ahead, (ahead + 1) * self._interval)

    def find(self, task: str, owner: str) -> list[QueueEntry]:
        """The waiting requests of an owner's task."""
        return [entry for entry in self._entries if (entry.task, entry.owner) == (task, owner)]

    def leave(self, task: str, owner: str) -> int:
        """Take an owner's task out of the queue. Returns how many images that were."""
        found = [entry for entry in self.find(task, owner) if not entry.left.is_set()]
        for entry in found:
            entry.left.set()
        return len(found)

    def _join(self, context: CallerContext) -> QueueEntry:
        if not self._entries:
            self._last_taken_at = self._clock()
        entry = QueueEntry(context.task, context.owner)
        self._entries[entry] = None
        return entry

    def _take(self, entry: QueueEntry) -> None:
        """A replica has taken it: the time since the last one tells the pace."""
        del self._entries[entry]
        now = self._clock()
        passed, self._last_taken_at = now - self._last_taken_at, now
        self._interval = PAST_WEIGHT * self._interval + (1 - PAST_WEIGHT) * passed if self._interval else passed
