"""The routes of the OpenAI Images API."""

import base64
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Request, UploadFile
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.image_events import collect_all_images
from serve_app.api.middleware.auth import caller_of
from serve_app.api.openai.image_params import (
    count_tokens,
    describe_images,
    edit_params,
    openai_params,
    read_text_fields,
)
from serve_app.api.openai.image_stream import StreamKind, openai_events
from serve_app.api.openai.openai_errors import OPENAI_ERRORS
from serve_app.api.openai.schemas import (
    EditsBody,
    GenerationsBody,
    ImageItem,
    ImagesResponse,
    ModelItem,
    ModelList,
    OpenAIBody,
)
from serve_app.api.pooled_route import PooledRoute
from serve_app.api.sse import after_first_event, event_response
from serve_app.api.usage import Admission
from serve_app.errors import InvalidRequest
from serve_app.requests.events import GeneratedImage
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext

IMAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The images, or their events with `stream`.", "content": {"text/event-stream": {}}},
    **OPENAI_ERRORS,
}

MODEL_LINKS = {
    "model": {
        "operationId": "get_model_v1_models__name__get",
        "parameters": {"name": "$response.body#/data/0/id"},
        "description": "Gets the first model.",
    }
}
"""Where the list leads, for OpenAPI."""


def router(dispatcher: Dispatcher) -> APIRouter:
    """The OpenAI routes."""
    routes = APIRouter(route_class=PooledRoute, tags=["openai"])

    @routes.post("/v1/images/generations", response_model=ImagesResponse, responses=IMAGE_RESPONSES)
    async def generations(
        body: GenerationsBody, request: Request, admission: Annotated[Admission, Depends(dispatcher.drawing)]
    ) -> Any:
        """Generate images from a prompt."""
        await admission.admit(body.model, body.n)
        params = openai_params(body, prompt=body.prompt, prompt_syntax="plain")
        return await generate_images(dispatcher, request, admission, body, params, "image_generation")

    @routes.post("/v1/images/edits", response_model=ImagesResponse, responses=IMAGE_RESPONSES)
    async def edits(
        request: Request,
        admission: Annotated[Admission, Depends(dispatcher.drawing)],
        image: Annotated[list[UploadFile] | None, File()] = None,
        mask: Annotated[UploadFile | None, File()] = None,
    ) -> Any:
        """Change an image, or the part of it that is transparent in the mask. The field `image[]` is read too."""
        form = await request.form()
        body = read_text_fields(EditsBody, form)
        await admission.admit(body.model, body.n)
        files = [*(image or []), *(one for one in form.getlist("image[]") if not isinstance(one, str))]
        if len(files) != 1:
            raise InvalidRequest("image", f"{len(files)} files", "must be one file")
        model = await dispatcher.capabilities(body.model)
        params = await dispatcher.workers.run(
            admission.caller.name,
            edit_params,
            body,
            await files[0].read(),
            await mask.read() if mask else None,
            model.limits.max_input_pixels,
        )
        return await generate_images(dispatcher, request, admission, body, params, "image_edit")

    @routes.post("/v1/images/variations", response_model=ImagesResponse, responses=IMAGE_RESPONSES)
    async def variations(
        request: Request,
        image: Annotated[UploadFile, File()],
        admission: Annotated[Admission, Depends(dispatcher.drawing)],
    ) -> Any:
        """Generate variations of an image, without a prompt."""
        body = read_text_fields(OpenAIBody, await request.form())
        await admission.admit(body.model, body.n)
        params = openai_params(body, image=await image.read())
        return await generate_images(dispatcher, request, admission, body, params, "image_edit")

    @routes.get("/v1/models", responses={200: {"links": MODEL_LINKS}, 401: OPENAI_ERRORS[401]})
    async def list_models() -> ModelList:
        """List all models and their aliases."""
        return ModelList(data=[ModelItem(id=name) for name in (*dispatcher.service.models, *dispatcher.config.aliases)])

    @routes.get("/v1/models/{name}", responses={key: OPENAI_ERRORS[key] for key in (401, 404)})
    async def get_model(name: str) -> ModelItem:
        """Get one model by its name or alias."""
        dispatcher.model_name(name)
        return ModelItem(id=name)

    return routes


async def generate_images(
    dispatcher: Dispatcher,
    request: Request,
    admission: Admission,
    body: OpenAIBody,
    params: GenerationParams,
    kind: StreamKind,
) -> ImagesResponse | StreamingResponse:
    """Generate the images; the response holds them all, or streams their events."""
    requests = await dispatcher.resolve(admission, params)
    description, usage = describe_images(body, requests[0]), count_tokens(params, requests)
    if body.stream:
        context = CallerContext(progress=True, previews=body.partial_images)
        events = await after_first_event(dispatcher.generate(admission, requests, context))
        return event_response(openai_events(events, kind, description, usage))
    images = await collect_all_images(dispatcher.generate(admission, requests), len(requests))
    if body.response_format == "b64_json":
        data = [ImageItem(b64_json=base64.b64encode(image.content).decode()) for image in images]
    else:
        data = [await store_image(dispatcher, request, image) for image in images]
    return ImagesResponse(created=int(time.time()), data=data, usage=usage, **description.model_dump())


async def store_image(dispatcher: Dispatcher, request: Request, image: GeneratedImage) -> ImageItem:
    """Keep an image for its link."""
    path = await run_in_threadpool(dispatcher.results.put, image, caller_of(request.scope).name)
    return ImageItem(url=str(request.base_url).rstrip("/") + path)
