"""A client that reads slowly or never: what is held for it is bounded, and its images come all the same."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Message

from serve_app.api.app import create_app
from serve_app.api.stream_buffer import MAX_HELD_BYTES, StreamBuffer
from serve_app.requests.events import Event, GeneratedImage, Progress, Queued, Timings
from serve_app.requests.request import CallerContext, GenerationRequest
from tests.api.fakes import CONFIG, FakeService

KB, MB = 1024, 1024 * 1024
IMAGE = GeneratedImage(b"x" * 3 * MB, "png", 8, 8, 1, Timings())


def taken(buffer: StreamBuffer, *entries: tuple[int, Event]) -> list[tuple[int, Event]]:
    """What a client gets that reads only once everything is there."""

    async def read() -> list[Any]:
        for entry in entries:
            buffer.put(entry)
        buffer.put(asyncio.create_task(asyncio.sleep(0)))
        found = []
        while not isinstance(entry := await buffer.take(), asyncio.Task):
            found.append(entry)
        return found

    return asyncio.run(read())


def previews(image: int, number: int, size: int) -> list[tuple[int, Event]]:
    return [(image, Progress(step, number, preview=bytes([step]) * size)) for step in range(1, number + 1)]


def test_a_client_that_keeps_up_gets_every_event() -> None:
    events: list[tuple[int, Event]] = [(0, Queued(1, 0.5)), *previews(0, 50, 10 * KB), (0, IMAGE)]
    assert taken(StreamBuffer(MB), *events) == events


def test_of_what_was_not_read_the_latest_stays_and_every_image() -> None:
    plain: tuple[int, Event] = (0, Progress(41, 50))
    events = [
        (0, Queued(3, 1.0)),
        *previews(0, 40, 300 * KB),
        plain,
        (0, IMAGE),
        (1, IMAGE),
        *previews(1, 40, 300 * KB),
    ]
    got = taken(StreamBuffer(MAX_HELD_BYTES), *events)
    assert [event for _, event in got if isinstance(event, GeneratedImage)] == [IMAGE, IMAGE]
    assert plain in got
    steps = [(index, event.step) for index, event in got if isinstance(event, Progress) and event.preview]
    assert {(0, 40), (1, 40)} <= set(steps)
    assert len(steps) <= 4
    assert steps == sorted(steps)


def test_a_preview_larger_than_the_limit_replaces_the_one_before() -> None:
    got = taken(StreamBuffer(100 * MB), *previews(0, 5, 2 * MB))
    assert [event.step for _, event in got if isinstance(event, Progress)] == [5]


def test_previews_end_where_their_bytes_do_and_progress_goes_on() -> None:
    got = taken(StreamBuffer(250 * KB), *previews(0, 5, 100 * KB), (0, IMAGE))
    seen = [len(event.preview or b"") for _, event in got if isinstance(event, Progress)]
    assert seen == [100 * KB, 100 * KB, 0, 0, 0]
    assert got[-1] == (0, IMAGE)


class Painting(FakeService):
    """Shows a large preview after each of many steps, without a pause for the client."""

    steps, preview_bytes = 200, 200 * KB

    def __init__(self) -> None:
        super().__init__(CONFIG)
        self.painted = asyncio.Event()

    async def _generate(self, request: GenerationRequest, context: CallerContext) -> AsyncGenerator[Event, None]:
        for step in range(1, self.steps + 1):
            await asyncio.sleep(0)
            yield Progress(step, self.steps, preview=step.to_bytes(2, "big") * (self.preview_bytes // 2))
        self.painted.set()
        yield replace(IMAGE, content=b"image")


async def read_late(path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[list[dict[str, Any]], int]:
    """The events of a client that reads the first bytes, and the rest only later; the most bytes that waited for it."""
    service, content = Painting(), json.dumps(body).encode()
    app, reads = create_app(service, service.config), asyncio.Event()
    text = b""

    async def receive() -> Message:
        if received:
            await asyncio.sleep(60)
        received.append(1)
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal text
        if len(text) > 0:
            await reads.wait()
        text += message.get("body", b"")

    received: list[int] = []
    sent = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "client": ("1.2.3.4", 5)}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in sent.items()]
    answering = asyncio.create_task(app(scope, receive, send))
    await asyncio.wait_for(service.painted.wait(), 30)
    before = len(text)
    reads.set()
    await answering
    events = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: ")]
    return events, len(text) - before


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/generate", {"prompt": "x", "previews": 10}, {"accept": "text/event-stream"}),
        ("/v1/images/generations", {"prompt": "x", "stream": True, "partial_images": 3}, {}),
    ],
)
def test_a_stream_that_is_read_late_brings_the_latest_preview_and_the_image(
    path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    events, waited = asyncio.run(read_late(path, body, headers))
    assert waited < 3 * MAX_HELD_BYTES
    shown = [one.get("preview") or one.get("b64_json") or "" for one in events]
    steps = [int.from_bytes(base64.b64decode(text)[:2], "big") for text in shown if len(text) > Painting.preview_bytes]
    assert steps[0] == 1
    assert steps[-1] == Painting.steps
    assert base64.b64encode(b"image").decode() in json.dumps(events[-2:])
