"""Server-sent events: heartbeats, the first event, and that closing reaches the source."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from serve_app.api.sse import HEARTBEAT, after_first_event, format_event, with_heartbeats


class Source:
    """Two events with a pause between them."""

    def __init__(self, pause_s: float = 0.0, error: Exception | None = None) -> None:
        self.pause_s = pause_s
        self.error = error
        self.closed = False

    async def events(self) -> AsyncGenerator[str, None]:
        try:
            if self.error is not None:
                raise self.error
            yield "a"
            await asyncio.sleep(self.pause_s)
            yield "b"
        finally:
            self.closed = True


def test_an_event_is_a_name_and_a_line_of_json() -> None:
    assert format_event("done", {"text": "two\nlines"}) == 'event: done\ndata: {"text": "two\\nlines"}\n\n'


def test_a_silent_stream_has_heartbeats() -> None:
    async def collect() -> list[str]:
        return [event async for event in with_heartbeats(Source(pause_s=0.1).events(), interval_s=0.02)]

    first, *beats, last = asyncio.run(collect())
    assert (first, last) == ("a", "b")
    assert set(beats) == {HEARTBEAT}


def test_all_events_come_after_the_first() -> None:
    async def collect() -> list[str]:
        return [event async for event in await after_first_event(Source().events())]

    assert asyncio.run(collect()) == ["a", "b"]


def test_an_error_before_the_first_event_is_raised_at_once() -> None:
    source = Source(error=KeyError("refused"))
    with pytest.raises(KeyError, match="refused"):
        asyncio.run(after_first_event(source.events()))  # type: ignore[arg-type]
    assert source.closed


def test_a_stream_that_is_closed_closes_its_source() -> None:
    source = Source(pause_s=60)

    async def close_early() -> None:
        events = with_heartbeats(await after_first_event(source.events()), interval_s=0.01)
        assert await anext(events) == "a"
        assert await anext(events) == HEARTBEAT
        await events.aclose()

    asyncio.run(close_early())
    assert source.closed
