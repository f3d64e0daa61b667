"""`POST /txt2img/`: a prompt in, a file out. `/v1/generate`: n images as JSON or as events; DELETE stops it."""

import base64
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response, StreamingResponse

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.image_events import collect_all_images
from serve_app.api.middleware.auth import caller_of
from serve_app.api.native.native_errors import problem
from serve_app.api.native.schemas import (
    NATIVE_ERRORS,
    STREAM_RESPONSES,
    GenerateBody,
    GenerateResponse,
    ImageBody,
    StopResponse,
)
from serve_app.api.pooled_route import PooledRoute
from serve_app.api.sse import after_first_event, event_response, format_event
from serve_app.api.stream_buffer import NumberedEvent
from serve_app.api.usage import Admission
from serve_app.errors import DarkroomError, InvalidRequest, NotFound, shorten
from serve_app.requests.events import Event, GeneratedImage, Progress, Queued
from serve_app.requests.image_files import MEDIA_TYPES
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest

CHUNK_BYTES = 64 * 1024


def router(dispatcher: Dispatcher) -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=PooledRoute)
    media = {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values()}

    async def txt2img(body: GenerationParams, admission: Annotated[Admission, Depends(dispatcher.drawing)]) -> Response:
        """Generate one image and return its file. The headers have its seed, its model, and the time of each phase."""
        if body.num_images != 1:
            raise InvalidRequest("num_images", body.num_images, "must be 1 here; /v1/generate makes several")
        await admission.admit(body.model, body.num_images)
        requests = await dispatcher.resolve(admission, body)
        events = dispatcher.generate(admission, requests)
        image = (await collect_all_images(events, 1))[0]
        headers = response_headers(requests[0], image)
        return StreamingResponse(_chunks(image.content), media_type=image.media_type, headers=headers)

    for path, shown in (("/txt2img/", True), ("/txt2img", False)):
        routes.add_api_route(
            path,
            txt2img,
            methods=["POST"],
            tags=["txt2img"],
            response_class=StreamingResponse,
            responses={200: {"content": media, "description": "The image."}, **NATIVE_ERRORS},
            include_in_schema=shown,
        )

    @routes.post("/v1/generate", tags=["generate"], response_model=GenerateResponse, responses=STREAM_RESPONSES)
    async def generate(
        body: GenerateBody, request: Request, admission: Annotated[Admission, Depends(dispatcher.drawing)]
    ) -> Any:
        """Generate images. With `Accept: text/event-stream`: queued, progress, image, done and error events."""
        await admission.admit(body.model, body.num_images)
        requests = await dispatcher.resolve(admission, body)
        return await generate_response(dispatcher, request, admission, requests, body.id, body.previews)

    @routes.delete("/v1/generate/{id}", tags=["generate"], responses={key: NATIVE_ERRORS[key] for key in (401, 404)})
    async def stop(task: Annotated[str, Path(alias="id")], request: Request) -> StopResponse:
        """Stop a request of one's own, by its id. Its rows are free before the next step."""
        stopped = await dispatcher.service.cancel(task, caller_of(request.scope).name)
        if not stopped:
            raise NotFound(f"no request of yours is called {shorten(task)}")
        return StopResponse(id=task, stopped=stopped)

    return routes


async def generate_response(
    dispatcher: Dispatcher,
    request: Request,
    admission: Admission,
    requests: Sequence[GenerationRequest],
    task: str | None,
    previews: int,
) -> GenerateResponse | StreamingResponse:
    """The response in the form that the `Accept` header asks for."""
    task = task or (admission.key.digest[:32] if admission.key is not None else uuid.uuid4().hex)
    if "text/event-stream" in request.headers.get("accept", ""):
        context = CallerContext(task=task, progress=True, previews=previews)
        events = await after_first_event(dispatcher.generate(admission, requests, context))
        return event_response(native_events(events, task))
    events = dispatcher.generate(admission, requests, CallerContext(task=task))
    images = await collect_all_images(events, len(requests))
    found = [ImageBody.of(index, image) for index, image in enumerate(images)]
    return GenerateResponse(id=task, model=requests[0].model, images=found)


def response_headers(request: GenerationRequest, image: GeneratedImage) -> dict[str, str]:
    """Seed, model, timings in milliseconds, and the size that was denoised where that is not the file's."""
    phases = {name: image.timings.phases[name] for name in ("queue", "encode", "denoise", "decode")}
    headers = {
        "X-Seed": str(image.seed),
        "X-Model": request.model,
        "Content-Length": str(len(image.content)),
        "Server-Timing": ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases.items()),
    }
    if image.flagged is not None:
        headers["X-Content-Flagged"] = "true" if image.flagged else "false"
    denoised = request.hires or request
    if (denoised.width, denoised.height) != (image.width, image.height):
        headers["X-Drawn-Size"] = f"{denoised.width}x{denoised.height}"
    return headers


async def native_events(events: AsyncGenerator[NumberedEvent, None], task: str) -> AsyncGenerator[str, None]:
    """The events of all images as server-sent events, and `done` or `error` last."""
    async with aclosing(events):
        try:
            async for index, event in events:
                yield native_event(task, index, event)
            yield format_event("done", {"id": task})
        except DarkroomError as error:
            yield format_event("error", {"id": task, "error": problem(error).model_dump()})


def native_event(task: str, index: int, event: Event) -> str:
    """One event of one image."""
    if isinstance(event, Queued):
        return format_event("queued", {"id": task, "index": index, **vars(event)})
    if isinstance(event, Progress):
        preview = base64.b64encode(event.preview).decode() if event.preview else None
        return format_event("progress", {"id": task, "index": index, **vars(event), "preview": preview})
    return format_event("image", {"id": task, **ImageBody.of(index, event).model_dump()})


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]
