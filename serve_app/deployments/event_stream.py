"""The events of one image, as the HTTP application gets them."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from serve_app.requests.events import Event


class EventStream:
    """An iterator of events that also ends its request's work where nobody has begun to read it.

    An async generator that was never begun runs nothing when it is closed.

    Args:
        events: the events.
        on_close: frees what the request holds. It may be called more than once.
    """

    def __init__(self, events: AsyncGenerator[Event, None], on_close: Callable[[], None]) -> None:
        self._events = events
        self._on_close = on_close

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events

    async def aclose(self) -> None:
        """End the work."""
        try:
            await self._events.aclose()
        finally:
            self._on_close()
