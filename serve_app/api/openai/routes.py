"""The OpenAI Images API: generations, edits, variations; partial images are real ones."""

import base64
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from serve_app.api.callers import caller_of
from serve_app.api.dispatcher import Dispatcher
from serve_app.api.error_responses import openai_problem
from serve_app.api.native.routes import begun, with_heartbeats, with_infotext
from serve_app.api.openai.schemas import (
    REFUSALS,
    EditsBody,
    GenerationsBody,
    ImageItem,
    ImagesResponse,
    OpenAIBody,
    count_usage,
)
from serve_app.api.results import ResultStore
from serve_app.errors import DarkroomError, InvalidRequest
from serve_app.requests.events import GeneratedImage, Progress
from serve_app.requests.input_images import mask_from_alpha
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.resolve import resolve_all

ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "The images, or with `stream` their events", "content": {"text/event-stream": {}}},
    **REFUSALS,
}
Upload = Annotated[UploadFile, File()]
Uploads = Annotated[list[UploadFile] | None, File()]


def router(dispatcher: Dispatcher, store: ResultStore) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.post("/v1/images/generations", response_model=ImagesResponse, responses=ANSWER)
    async def generations(body: GenerationsBody, request: Request) -> Any:
        """Draw images from a prompt."""
        wish = to_params(body, prompt=body.prompt, prompt_syntax="plain")
        return await respond(dispatcher, store, request, body, wish, "image_generation")

    @routes.post("/v1/images/edits", response_model=ImagesResponse, responses=ANSWER)
    async def edits(request: Request, image: Uploads = None, mask: Annotated[UploadFile | None, File()] = None) -> Any:
        """Draw over an image, or over what its mask leaves transparent. Also takes `image[]`."""
        form = await request.form()
        body = read_form(EditsBody, form)
        sent = [*(image or []), *(one for one in form.getlist("image[]") if not isinstance(one, str))]
        if len(sent) != 1:
            raise InvalidRequest("image", f"{len(sent)} files", "must be one file")
        picture, hole = await sent[0].read(), await mask.read() if mask else None
        wish = to_params(
            body,
            prompt=body.prompt,
            prompt_syntax="plain",
            strength=body.strength,
            image=picture,
            mask=read_mask(dispatcher, body, picture, hole),
        )
        return await respond(dispatcher, store, request, body, wish, "image_edit")

    @routes.post("/v1/images/variations", response_model=ImagesResponse, responses=ANSWER)
    async def variations(request: Request, image: Upload) -> Any:
        """Draw an image anew, without a prompt."""
        body = read_form(OpenAIBody, await request.form())
        return await respond(dispatcher, store, request, body, to_params(body, image=await image.read()), "image_edit")

    return routes


def read_form(kind: type[BaseModel], form: Any) -> Any:
    """The text fields of a multipart form; raises RequestValidationError as a JSON body would."""
    fields = {key: value for key, value in form.items() if isinstance(value, str)}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error


def read_mask(dispatcher: Dispatcher, body: OpenAIBody, picture: bytes, mask: bytes | None) -> bytes | None:
    """The hole in the mask, or in the picture itself; None where neither has one."""
    limits = dispatcher.config.models[dispatcher.model_name(body.model)].limits
    if mask is not None:
        found = mask_from_alpha("mask", mask, limits)
        if found is None:
            raise InvalidRequest("mask", "an opaque image", "must be transparent where the image is to be edited")
        return found
    return mask_from_alpha("image", picture, limits)


def to_params(body: OpenAIBody, **more: Any) -> GenerationParams:
    """OpenAI's fields to ours. Quality and style are the model's own here, so they are taken and change nothing."""
    width, height = (None, None) if body.size == "auto" else (int(side) for side in body.size.split("x"))
    return GenerationParams(
        negative_prompt=body.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=body.num_inference_steps,
        guidance_scale=body.guidance_scale,
        seed=body.seed,
        num_images=body.n,
        output_format=body.output_format,
        quality=max(1, body.output_compression),
        **more,
    )


async def respond(
    dispatcher: Dispatcher, store: ResultStore, request: Request, body: OpenAIBody, wish: GenerationParams, kind: str
) -> ImagesResponse | StreamingResponse:
    """All images at once, or their events."""
    model = dispatcher.model_name(body.model)
    requests = [with_infotext(one) for one in resolve_all(wish, model, dispatcher.config.models[model])]
    caller = caller_of(request.scope)
    about = describe(requests, body)
    usage = count_usage(wish.prompt, wish.image is not None, about.pop("pixels"), len(requests)).model_dump()
    if body.stream:
        context = CallerContext(progress=True, previews=body.partial_images)
        events = stream(await begun(dispatcher.draw(caller, requests, context)), kind, about, usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    images = await dispatcher.images(caller, requests)
    if body.response_format == "b64_json":
        data = [ImageItem(b64_json=base64.b64encode(image.content).decode()) for image in images]
    else:
        paths = [await run_in_threadpool(store.put, image) for image in images]
        data = [ImageItem(url=str(request.base_url).rstrip("/") + path) for path in paths]
    return ImagesResponse(created=int(time.time()), data=data, usage=usage, **about)  # type: ignore[arg-type]


def describe(requests: Sequence[GenerationRequest], body: OpenAIBody) -> dict[str, Any]:
    """What every answer and event repeats."""
    output = requests[0].output
    quality = body.quality if body.quality not in ("standard", "hd") else "auto"
    return {
        "size": f"{output.width}x{output.height}",
        "quality": quality,
        "background": "opaque",
        "output_format": output.format,
        "pixels": output.width * output.height,
    }


async def stream(
    events: AsyncIterator[Any], kind: str, about: dict[str, Any], usage: dict[str, Any]
) -> AsyncIterator[str]:
    """OpenAI's events: partial images, completed, and an error event where one image fails."""
    seen: dict[int, int] = {}
    async with aclosing(with_heartbeats(events)) as beating:  # pyright: ignore[reportArgumentType]
        try:
            async for numbered in beating:
                if numbered is None:
                    yield ": still here\n\n"
                    continue
                index, event = numbered
                if isinstance(event, Progress) and event.preview is not None:
                    part = seen.get(index, 0)
                    seen[index] = part + 1
                    yield _event(f"{kind}.partial_image", event.preview, about, partial_image_index=part)
                elif isinstance(event, GeneratedImage):
                    yield _event(f"{kind}.completed", event.content, about, usage=usage)
        except DarkroomError as error:
            yield f"event: error\ndata: {json.dumps({'type': 'error', **openai_problem(error)[1].model_dump()})}\n\n"


def _event(kind: str, content: bytes, about: dict[str, Any], **more: Any) -> str:
    body = {
        "type": kind,
        "b64_json": base64.b64encode(content).decode(),
        "created_at": int(time.time()),
        **about,
        **more,
    }
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n"
