"""`POST /txt2img/`: a prompt in, the image's bytes out."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from serve_app.api.infotext import write_infotext
from serve_app.api.problems import ProblemResponse
from serve_app.api.service import Service
from serve_app.api.wishes import Txt2ImgBody, read_wish
from serve_app.config import AppConfig
from serve_app.engine.request import MEDIA_TYPES, GeneratedImage, GenerationRequest
from serve_app.engine.resolve import resolve
from serve_app.errors import GenerationFailed, UnknownName

CHUNK_BYTES = 64 * 1024
REFUSALS = {
    400: "not readable as a request",
    413: "body over the limit",
    422: "a field is out of its limit; the error names it. Or the safety checker refused the picture",
    429: "the queue is full; see Retry-After",
    500: "this image could not be drawn",
    503: "warming up or draining",
}


def router(service: Service) -> APIRouter:
    """The route, with and without its slash."""
    routes = APIRouter(tags=["txt2img"])
    media = {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values()}

    async def txt2img(body: Txt2ImgBody) -> StreamingResponse:
        """Draw one image and stream the file; the headers tell its seed, its model, and where the time went."""
        request = read_request(body, service.config)
        image = await draw(service, request)
        return StreamingResponse(
            _chunks(image.content), media_type=image.media_type, headers=response_headers(request, image)
        )

    responses: dict[int | str, dict[str, object]] = {200: {"content": media, "description": "The image."}}
    for status, description in REFUSALS.items():
        responses[status] = {"model": ProblemResponse, "description": description}
    for path, shown in (("/txt2img/", True), ("/txt2img", False)):
        routes.add_api_route(
            path,
            txt2img,
            methods=["POST"],
            response_class=StreamingResponse,
            responses=responses,
            include_in_schema=shown,
        )
    return routes


def read_request(body: Txt2ImgBody, config: AppConfig) -> GenerationRequest:
    """Resolve the body against its model; raises InvalidRequest and UnknownName."""
    model = body.model if body.model is not None else config.default_model
    if model not in config.models:
        raise UnknownName("model", model, f"must be one of {', '.join(config.models)}")
    request = resolve(read_wish(body), model, config.models[model])
    return replace(request, output=replace(request.output, infotext=write_infotext(request)))


async def draw(service: Service, request: GenerationRequest) -> GeneratedImage:
    """Wait for the image; cancelled with the caller."""
    async with aclosing(service.generate(request)) as events:  # pyright: ignore[reportArgumentType]
        async for event in events:
            if isinstance(event, GeneratedImage):
                return event
    raise GenerationFailed("the model ended its answer without an image")


def response_headers(request: GenerationRequest, image: GeneratedImage) -> dict[str, str]:
    """Seed, model, timings in milliseconds, and the size it was drawn at where that is not the file's."""
    phases = {
        "queue": image.timings.queue,
        "encode": image.timings.encode,
        "denoise": image.timings.denoise,
        "decode": image.timings.decode,
    }
    headers = {
        "X-Seed": str(image.seed),
        "X-Model": request.model,
        "Content-Length": str(len(image.content)),
        "Server-Timing": ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases.items()),
    }
    if image.flagged is not None:
        headers["X-Content-Flagged"] = "true" if image.flagged else "false"
    drawn = request.hires or request
    if (drawn.width, drawn.height) != (image.width, image.height):
        headers["X-Drawn-Size"] = f"{drawn.width}x{drawn.height}"
    return headers


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]
