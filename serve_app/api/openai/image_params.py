"""OpenAI's fields and files as `GenerationParams`, and what the response says of a request."""

from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from serve_app.api.openai.schemas import EditsBody, ImageDescription, ImageUsage, InputTokens, OpenAIBody
from serve_app.errors import InvalidRequest
from serve_app.requests.image_files import mask_from_alpha, read_image
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import GenerationRequest

Form = TypeVar("Form", bound=BaseModel)


def read_text_fields(kind: type[Form], form: FormData) -> Form:
    """The text fields of a multipart form; raises RequestValidationError, as FastAPI does for a JSON body."""
    fields = {key: value for key, value in form.items() if isinstance(value, str)}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error


def edit_mask(image: bytes, mask: bytes | None, max_pixels: int) -> bytes | None:
    """The mask of an edit: white where `mask` is transparent, or `image` itself where no mask is sent.

    None where `image` is opaque and no mask is sent. Raises InvalidRequest where `mask` is opaque.
    """
    if mask is None:
        return mask_from_alpha(read_image("image", image, max_pixels))
    found = mask_from_alpha(read_image("mask", mask, max_pixels))
    if found is None:
        raise InvalidRequest("mask", "an opaque image", "must be transparent where the image is to be edited")
    return found


def edit_params(body: EditsBody, image: bytes, mask: bytes | None, max_pixels: int) -> GenerationParams:
    """The parameters of an edit. Decodes the images; raises InvalidRequest."""
    hole = edit_mask(image, mask, max_pixels)
    return openai_params(
        body, prompt=body.prompt, prompt_syntax="plain", strength=body.strength, image=image, mask=hole
    )


def openai_params(body: OpenAIBody, **more: Any) -> GenerationParams:
    """OpenAI's fields as parameters. Quality and style have no effect."""
    width, height = (None, None) if body.size == "auto" else (int(side) for side in body.size.split("x"))
    return GenerationParams.checked(
        model=body.model,
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


def describe_images(body: OpenAIBody, request: GenerationRequest) -> ImageDescription:
    """The size, quality and format of a request's images."""
    output = request.output
    quality = "auto" if body.quality in ("standard", "hd") else body.quality
    return ImageDescription(size=f"{output.width}x{output.height}", quality=quality, output_format=output.format)


def count_tokens(params: GenerationParams, requests: Sequence[GenerationRequest]) -> ImageUsage:
    """The tokens of a request. An image that was sent counts as if it had the size of the generated ones."""
    output = requests[0].output
    image_tokens = -(-output.width * output.height // 256)
    text, sent = -(-len(params.prompt) // 4), image_tokens if params.image is not None else 0
    generated = len(requests) * image_tokens
    return ImageUsage(
        input_tokens=text + sent,
        input_tokens_details=InputTokens(image_tokens=sent, text_tokens=text),
        output_tokens=generated,
        total_tokens=text + sent + generated,
    )
