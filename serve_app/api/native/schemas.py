"""The bodies and responses of Darkroom's own API. Its parameters are those of requests/params.py."""

import base64
from typing import Annotated, Any

from pydantic import BaseModel, Field

from serve_app.api.native.native_errors import ProblemResponse
from serve_app.requests.events import GeneratedImage
from serve_app.requests.params import GenerationParams, Params

NATIVE_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemResponse, "description": text}
    for status, text in {
        400: "The body cannot be read as a request.",
        401: "The key is missing or not valid.",
        404: "There is no such request or preset.",
        409: "The request was stopped by its owner.",
        413: "The body is over the limit.",
        422: "A field is out of its limit, and the error names it; or the safety checker refused the image.",
        429: "The queue is full, or a limit of the key is reached; see Retry-After.",
        500: "This image could not be generated.",
        503: "The model is warming up or draining.",
    }.items()
}
STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images, or their events where Accept says so.",
        "content": {"text/event-stream": {}},
        "links": {
            "stop": {
                "operationId": "stop_v1_generate__id__delete",
                "parameters": {"id": "$response.body#/id"},
                "description": "Stops the request while it runs.",
            }
        },
    },
    **NATIVE_ERRORS,
}


class GenerateBody(GenerationParams):
    """All parameters, and what to be told."""

    previews: Annotated[int, Field(ge=0, le=20, description="Intermediate images in the stream, evenly spaced.")] = 0
    id: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="An id for the request, to stop it by.")
    ] = None


class ImageBody(BaseModel):
    """One finished image."""

    index: Annotated[int, Field(description="Which image of the request.")]
    b64_json: Annotated[str, Field(description="The file, base64.")]
    media_type: Annotated[str, Field(description="Such as image/png.")]
    width: Annotated[int, Field(description="Width, pixels.")]
    height: Annotated[int, Field(description="Height, pixels.")]
    seed: Annotated[int, Field(description="The seed of this image.")]
    flagged: Annotated[bool | None, Field(description="The safety checker's verdict; null without a check.")] = None
    timings_ms: Annotated[dict[str, float], Field(description="Milliseconds in each phase.")]

    @classmethod
    def of(cls, index: int, image: GeneratedImage) -> "ImageBody":
        """Image number `index` of a request."""
        return cls(
            index=index,
            b64_json=base64.b64encode(image.content).decode(),
            media_type=image.media_type,
            width=image.width,
            height=image.height,
            seed=image.seed,
            flagged=image.flagged,
            timings_ms={name: round(seconds * 1000, 1) for name, seconds in image.timings.phases.items()},
        )


class GenerateResponse(BaseModel):
    """All images of a request."""

    id: Annotated[str, Field(description="The request's id.")]
    model: Annotated[str, Field(description="The model that generated them.")]
    images: Annotated[list[ImageBody], Field(description="In the order of their seeds.")]


class StopResponse(BaseModel):
    """How many images were stopped."""

    id: Annotated[str, Field(description="The request's id.")]
    stopped: Annotated[int, Field(description="How many images.")]


class PresetBody(Params):
    """The template's variables, and what a preset leaves to its callers."""

    variables: Annotated[dict[str, str], Field(description="One text for each variable of the template.")] = {}
    seed: Annotated[int | None, Field(description="The same request and seed give the same image.")] = None
    num_images: Annotated[int, Field(description="How many images. Image i has seed + i.")] = 1


class PresetItem(BaseModel):
    """One preset."""

    name: Annotated[str, Field(description="The preset's name.")]
    variables: Annotated[list[str], Field(description="The variables to fill in.")]
    model: Annotated[str, Field(description="The model that it uses.")]
