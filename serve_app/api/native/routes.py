"""`/v1/generate`: every feature, as JSON or as a stream of events; `DELETE` stops it."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from serve_app.api.dispatcher import Dispatcher, Numbered
from serve_app.api.infotext import write_infotext
from serve_app.api.middleware.auth import caller_of
from serve_app.api.native.native_errors import ProblemResponse, problem
from serve_app.api.native.schemas import Txt2ImgBody, to_params
from serve_app.errors import DarkroomError, NotFound
from serve_app.requests.events import Event, GeneratedImage, Progress, Queued
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.resolve import resolve_all

HEARTBEAT_SECONDS = 10.0
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemResponse, "description": text}
    for status, text in {
        400: "not readable as a request",
        401: "no valid key",
        404: "no such task or preset",
        409: "stopped by its owner",
        413: "body over the limit",
        422: "a field is out of its limit; the error names it. Or the safety checker refused the picture",
        429: "the queue is full, or a limit of the key is reached; see Retry-After",
        500: "this image could not be drawn",
        503: "warming up or draining",
    }.items()
}


class GenerateBody(Txt2ImgBody):
    """Images, seed + i each."""

    num_images: Annotated[int, Field(description="How many; image i has seed + i.")] = 1
    previews: Annotated[int, Field(ge=0, le=20, description="Pictures on the way, evenly spaced, in the stream.")] = 0
    id: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Names the request, to stop it.")
    ] = None


class ImageBody(BaseModel):
    """One finished image."""

    index: Annotated[int, Field(description="Which image of the request.")]
    b64_json: Annotated[str, Field(description="The file, base64.")]
    media_type: Annotated[str, Field(description="Such as image/png.")]
    width: Annotated[int, Field(description="Pixels.")]
    height: Annotated[int, Field(description="Pixels.")]
    seed: Annotated[int, Field(description="Its seed.")]
    flagged: Annotated[bool | None, Field(description="The safety checker's verdict, if one looked.")] = None
    timings_ms: Annotated[dict[str, float], Field(description="Milliseconds in each phase.")]


class GenerateResponse(BaseModel):
    """All images."""

    id: Annotated[str, Field(description="The name to stop it by.")]
    model: Annotated[str, Field(description="The model that drew.")]
    images: Annotated[list[ImageBody], Field(description="In the order of their seeds.")]


class Stopped(BaseModel):
    """How many images were stopped."""

    id: Annotated[str, Field(description="The name to stop it by.")]
    stopped: Annotated[int, Field(description="How many images.")]


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["generate"])

    @routes.post("/v1/generate", response_model=GenerateResponse, responses=stream_responses())
    async def generate(body: GenerateBody, request: Request) -> Any:
        """Draw images. With `Accept: text/event-stream`: queued, progress, image, done and error events."""
        model = dispatcher.model_name(body.model)
        wish = replace(to_params(body), num_images=body.num_images)
        requests = [with_infotext(one) for one in resolve_all(wish, model, dispatcher.config.models[model])]
        return await respond(dispatcher, request, requests, body.id, body.previews)

    @routes.delete("/v1/generate/{task}", responses={key: REFUSALS[key] for key in (401, 404)})
    async def stop(task: str, request: Request) -> Stopped:
        """Stop a request of one's own, by its id; its rows are free before the next step."""
        stopped = await dispatcher.cancel(caller_of(request.scope), task)
        if not stopped:
            raise NotFound(f"nothing of yours is being drawn as {task}")
        return Stopped(id=task, stopped=stopped)

    return routes


async def respond(
    dispatcher: Dispatcher, request: Request, requests: Sequence[GenerationRequest], task: str | None, previews: int
) -> GenerateResponse | StreamingResponse:
    """The answer in the form that the `Accept` header asks for."""
    caller, task = caller_of(request.scope), task or uuid.uuid4().hex
    if "text/event-stream" in request.headers.get("accept", ""):
        context = CallerContext(task, progress=True, previews=previews)
        events = await begun(dispatcher.draw(caller, requests, context))
        return StreamingResponse(
            event_stream(events, task), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
    images = await dispatcher.images(caller, requests, CallerContext(task))
    found = [image_body(index, image) for index, image in enumerate(images)]
    return GenerateResponse(id=task, model=requests[0].model, images=found)


def with_infotext(request: GenerationRequest) -> GenerationRequest:
    """The request, its parameters to be written into the file."""
    return replace(request, output=replace(request.output, infotext=write_infotext(request)))


def image_body(index: int, image: GeneratedImage) -> ImageBody:
    """A finished image as JSON."""
    timings = {name: round(seconds * 1000, 1) for name, seconds in image.timings.phases.items()}
    return ImageBody(
        index=index,
        b64_json=base64.b64encode(image.content).decode(),
        media_type=image.media_type,
        width=image.width,
        height=image.height,
        seed=image.seed,
        flagged=image.flagged,
        timings_ms=timings,
    )


def stream_responses() -> dict[int | str, dict[str, Any]]:
    """What a generating route may answer."""
    streamed = {"description": "The images, or their events", "content": {"text/event-stream": {}}}
    return {200: streamed, **REFUSALS}


async def event_stream(events: AsyncIterator[Numbered], task: str) -> AsyncIterator[str]:
    """Server-sent events; a comment every few seconds keeps the connection open."""
    async with aclosing(with_heartbeats(events)) as beating:  # pyright: ignore[reportArgumentType]
        try:
            async for event in beating:
                yield ": still here\n\n" if event is None else describe(task, *event)
            yield sse("done", {"id": task})
        except DarkroomError as error:
            yield sse("error", {"id": task, "error": problem(error).model_dump()})


async def begun(events: AsyncIterator[Numbered]) -> AsyncIterator[Numbered]:
    """The same events, once the first has come: what is refused before that is an HTTP status and no event."""
    first = await anext(events)

    async def all_of_them() -> AsyncIterator[Numbered]:
        try:
            yield first
            async for event in events:
                yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return all_of_them()


async def with_heartbeats(events: AsyncIterator[Numbered]) -> AsyncIterator[Numbered | None]:
    """The events, and None whenever none came for a while. Closing it closes them."""
    upcoming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            ready, _ = await asyncio.wait([upcoming], timeout=HEARTBEAT_SECONDS)
            if not ready:
                yield None
                continue
            event = upcoming.result()
            if event is None:
                return
            yield event
            upcoming = asyncio.ensure_future(anext(events, None))
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]


def describe(task: str, index: int, event: Event) -> str:
    """One event of one image."""
    if isinstance(event, Queued):
        return sse("queued", {"id": task, "index": index, **vars(event)})
    if isinstance(event, Progress):
        preview = base64.b64encode(event.preview).decode() if event.preview else None
        return sse("progress", {"id": task, "index": index, **vars(event), "preview": preview})
    return sse("image", {"id": task, **image_body(index, event).model_dump()})


def sse(name: str, content: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"
