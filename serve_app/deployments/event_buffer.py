"""Between the engine's threads and a stream: events that a slow reader gets coalesced."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from serve_app.requests.events import Progress, ResumePoint

EngineEvent = Progress | ResumePoint


class EventBuffer:
    """Coalesced: a slow reader gets the latest event of each kind, but every preview. Make it on the reader's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: list[EngineEvent] = []
        self._news = asyncio.Event()
        self._closed = False

    def put(self, event: EngineEvent) -> None:
        """Add an event, from any thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._add, event)

    def close(self, _: object = None) -> None:
        """End the reading, once what is here has been read."""
        self._closed = True
        self._news.set()

    async def read(self) -> AsyncIterator[EngineEvent]:
        """The events as they come, until the buffer is closed."""
        while self._events or not self._closed:
            if self._events:
                yield self._events.pop(0)
            else:
                self._news.clear()
                await self._news.wait()

    def _add(self, event: EngineEvent) -> None:
        self._events = [*(one for one in self._events if is_kept(one, event)), event]
        self._news.set()


def is_kept(earlier: EngineEvent, later: EngineEvent) -> bool:
    """Whether an event that is not read yet is still worth reading."""
    shown = isinstance(earlier, Progress) and earlier.preview is not None
    return shown or type(earlier) is not type(later)
