"""OpenAI's stream of events: partial images, and then each completed image."""

import base64
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from serve_app.api.openai.openai_errors import openai_problem
from serve_app.api.openai.schemas import ImageDescription, ImageUsage
from serve_app.api.sse import format_event
from serve_app.api.stream_buffer import NumberedEvent
from serve_app.errors import DarkroomError
from serve_app.requests.events import GeneratedImage, Progress

StreamKind = Literal["image_generation", "image_edit"]
"""How the names of a route's events begin."""


async def openai_events(
    events: AsyncGenerator[NumberedEvent, None], kind: StreamKind, description: ImageDescription, usage: ImageUsage
) -> AsyncGenerator[str, None]:
    """Each preview and image as an event; a DarkroomError becomes an `error` event, which is the last.

    Closing the result closes `events`.
    """
    previews: Counter[int] = Counter()
    about = description.model_dump()
    async with aclosing(events):
        try:
            async for index, event in events:
                if isinstance(event, Progress) and event.preview is not None:
                    part = {"partial_image_index": previews[index], **about}
                    previews[index] += 1
                    yield image_event(f"{kind}.partial_image", event.preview, part)
                elif isinstance(event, GeneratedImage):
                    yield image_event(f"{kind}.completed", event.content, {**about, "usage": usage.model_dump()})
        except DarkroomError as error:
            yield format_event("error", {"type": "error", **openai_problem(error)[1].model_dump()})


def image_event(name: str, content: bytes, fields: dict[str, Any]) -> str:
    """One event with an image file."""
    data = base64.b64encode(content).decode()
    return format_event(name, {"type": name, "b64_json": data, "created_at": int(time.time()), **fields})
