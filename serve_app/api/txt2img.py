"""`POST /txt2img/`: a prompt in, the image's bytes out."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from serve_app.api.dispatcher import Dispatcher
from serve_app.api.middleware.auth import caller_of
from serve_app.api.native.routes import REFUSALS, with_infotext
from serve_app.api.native.schemas import Txt2ImgBody, to_params
from serve_app.requests.events import GeneratedImage
from serve_app.requests.request import MEDIA_TYPES, GenerationRequest
from serve_app.requests.resolve import resolve

CHUNK_BYTES = 64 * 1024


def router(dispatcher: Dispatcher) -> APIRouter:
    """The route, with and without its slash."""
    routes = APIRouter(tags=["txt2img"])
    media = {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values()}

    async def txt2img(body: Txt2ImgBody, request: Request) -> StreamingResponse:
        """Draw one image and stream the file; the headers tell its seed, its model, and where the time went."""
        model = dispatcher.model_name(body.model)
        one = with_infotext(resolve(to_params(body), model, dispatcher.config.models[model]))
        image = (await dispatcher.images(caller_of(request.scope), [one]))[0]
        return StreamingResponse(
            _chunks(image.content), media_type=image.media_type, headers=response_headers(one, image)
        )

    for path, shown in (("/txt2img/", True), ("/txt2img", False)):
        routes.add_api_route(
            path,
            txt2img,
            methods=["POST"],
            response_class=StreamingResponse,
            responses={200: {"content": media, "description": "The image."}, **REFUSALS},
            include_in_schema=shown,
        )
    return routes


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
