"""Server-sent events: their format, heartbeats, and errors that come before the first event."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse

HEARTBEAT_SECONDS = 10.0
"""How long a stream may be silent before a comment keeps its connection open."""

HEARTBEAT = ": still here\n\n"
"""A comment, which clients ignore."""

T = TypeVar("T")


def format_event(name: str, content: dict[str, Any]) -> str:
    """One event with JSON content."""
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"


def event_response(events: AsyncGenerator[str, None]) -> StreamingResponse:
    """The response that streams formatted events, with heartbeats between them."""
    return StreamingResponse(
        with_heartbeats(events, HEARTBEAT_SECONDS),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store"},
    )


async def with_heartbeats(events: AsyncGenerator[str, None], interval_s: float) -> AsyncGenerator[str, None]:
    """The events, and a heartbeat whenever there was none for `interval_s` seconds. Closing it closes `events`."""
    upcoming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            ready, _ = await asyncio.wait([upcoming], timeout=interval_s)
            if not ready:
                yield HEARTBEAT
                continue
            event = upcoming.result()
            if event is None:
                return
            yield event
            upcoming = asyncio.ensure_future(anext(events, None))
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()


async def after_first_event(events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Wait for the first event, then return all of them. Closing the result closes `events`.

    An error before the first event is raised here, so that it still becomes an HTTP status.
    """
    first = await anext(events)

    async def all_events() -> AsyncGenerator[T, None]:
        try:
            yield first
            async for event in events:
                yield event
        finally:
            await events.aclose()

    return all_events()
