"""Requests that no replica has taken yet: how many are before one, how long that takes, and how to leave."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from serve_app.errors import Cancelled
from serve_app.requests.events import Queued, ReplicaEvent
from serve_app.requests.request import CallerContext

BEAT_SECONDS = 0.5
"""How often a waiting caller is told its place, if that has changed."""
MEMORY = 0.8
"""The weight of the past in the mean time between two requests taken."""


@dataclass(frozen=True, eq=False)
class QueueEntry:
    """One waiting request."""

    task: str
    owner: str
    left: asyncio.Event = field(default_factory=asyncio.Event)


class ModelQueue:
    """One model's, of one ingress replica: others' requests are taken in between, which the measured pace contains.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places: dict[QueueEntry, None] = {}
        self._interval = 0.0
        self._moved = 0.0

    async def wait(self, events: AsyncIterator[ReplicaEvent], context: CallerContext) -> AsyncIterator[ReplicaEvent]:
        """The replica's events, and before them the place in line whenever it has changed.

        Raises:
            Cancelled: `leave` was called before a replica took the request.
        """
        place = QueueEntry(context.task, context.owner)
        first, left = asyncio.ensure_future(anext(events)), asyncio.ensure_future(place.left.wait())
        self._join(place)
        told: int | None = None
        try:
            while not first.done() and not left.done():
                await asyncio.wait([first, left], timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                standing = self.standing(place)
                if not first.done() and not left.done() and standing.position != told:
                    told = standing.position
                    yield standing
            if not first.done():
                raise Cancelled("stopped by its owner")
            if first.exception() is None:
                self._move()
        finally:
            self._places.pop(place)
            for waiting in (first, left):
                waiting.cancel()
            await asyncio.gather(first, left, return_exceptions=True)
        yield first.result()
        async for event in events:
            yield event

    def standing(self, place: QueueEntry) -> Queued:
        """How many are before it, and about when it is taken."""
        before = list(self._places).index(place)
        return Queued(before, (before + 1) * self._interval)

    def find(self, task: str, owner: str) -> list[QueueEntry]:
        """The places of an owner's task."""
        return [place for place in self._places if (place.task, place.owner) == (task, owner)]

    def leave(self, task: str, owner: str) -> int:
        """Take an owner's task out of the line; how many images that were."""
        found = [place for place in self.find(task, owner) if not place.left.is_set()]
        for place in found:
            place.left.set()
        return len(found)

    def _join(self, place: QueueEntry) -> None:
        if not self._places:
            self._moved = self._clock()
        self._places[place] = None

    def _move(self) -> None:
        """One was taken: by how long ago the last one was, the pace is known."""
        now = self._clock()
        passed, self._moved = now - self._moved, now
        self._interval = MEMORY * self._interval + (1 - MEMORY) * passed if self._interval else passed
