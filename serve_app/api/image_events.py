"""The events of all images of a request: merged as they come, and collected where only the images count."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from serve_app.api.service import Events
from serve_app.api.stream_buffer import NumberedEvent, StreamBuffer
from serve_app.errors import Cancelled, GenerationFailed
from serve_app.requests.events import GeneratedImage


async def merge_events(streams: Sequence[Events], max_preview_bytes: int) -> AsyncGenerator[NumberedEvent, None]:
    """The events of all images as they come. Closing the iterator closes all streams.

    One image's error ends them all. An image that its owner stops ends alone: Cancelled is raised after the others.
    """
    events = StreamBuffer(max_preview_bytes)
    stopped: Cancelled | None = None
    images = [asyncio.create_task(feed(index, stream, events)) for index, stream in enumerate(streams)]
    for image in images:
        image.add_done_callback(events.put)
    try:
        running = len(images)
        while running:
            event = await events.take()
            if isinstance(event, asyncio.Task):
                running -= 1
                try:
                    event.result()
                except Cancelled as error:
                    stopped = error
                continue
            yield event
    finally:
        for image in images:
            image.cancel()
        await asyncio.gather(*images, return_exceptions=True)
        await asyncio.gather(*(stream.aclose() for stream in streams), return_exceptions=True)
    if stopped is not None:
        raise stopped


async def feed(index: int, stream: Events, events: StreamBuffer) -> None:
    """Put one image's events into the buffer; raises what its stream raises."""
    done = False
    async for event in stream:
        done = done or isinstance(event, GeneratedImage)
        events.put((index, event))
    if not done:
        raise GenerationFailed("the model ended its response without an image")


async def collect_images(events: AsyncGenerator[NumberedEvent, None]) -> dict[int, GeneratedImage]:
    """The images by their index, without those that their owner stopped. Raises Cancelled if all were stopped."""
    found: dict[int, GeneratedImage] = {}
    try:
        async with aclosing(events):
            async for index, event in events:
                if isinstance(event, GeneratedImage):
                    found[index] = event
    except Cancelled:
        if not found:
            raise
    return dict(sorted(found.items()))


async def collect_all_images(events: AsyncGenerator[NumberedEvent, None], expected: int) -> list[GeneratedImage]:
    """All `expected` images, in order. Raises Cancelled if any was stopped."""
    found = await collect_images(events)
    if len(found) < expected:
        raise Cancelled("the request was stopped by its owner")
    return list(found.values())
