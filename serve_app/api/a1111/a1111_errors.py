"""The shape of errors of AUTOMATIC1111's API."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from serve_app.errors import DarkroomError, InvalidRequest, UnknownName

A1111_FIELDS = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "num_images": "batch_size",
    "strength": "denoising_strength",
    "sampler": "sampler_name",
    "model": "override_settings.sd_model_checkpoint",
    "clip_skip": "override_settings.CLIP_stop_at_last_layers",
    "hires.scale": "hr_scale",
    "hires.width": "hr_resize_x",
    "hires.height": "hr_resize_y",
    "hires.strength": "denoising_strength",
    "hires.num_inference_steps": "hr_second_pass_steps",
}
"""Darkroom's names of fields, and AUTOMATIC1111's."""


class A1111Problem(BaseModel):
    """The body of every error response of an AUTOMATIC1111 route."""

    error: Annotated[str, Field(description="The class of the error, such as `InvalidRequest`.")]
    detail: Annotated[str, Field(description="The error as a sentence.")]
    body: Annotated[str, Field(description="Always empty.")]
    errors: Annotated[str, Field(description="The error as a sentence: field, limit and value.")]


A1111_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": A1111Problem, "description": text}
    for status, text in {
        401: "The key is missing or unknown.",
        404: "The sampler is unknown.",
        409: "The request was interrupted.",
        413: "The body is too large.",
        422: "A field is invalid, or the safety checker refused the image.",
        429: "The queue is full, or the key has reached one of its limits.",
        500: "The image could not be generated.",
        503: "The model is warming up or shutting down.",
    }.items()
}
"""The error responses of AUTOMATIC1111 routes, for OpenAPI."""


def a1111_problem(error: DarkroomError) -> tuple[int, A1111Problem]:
    """Status and body. An unknown sampler is 404, as AUTOMATIC1111 answers it."""
    if isinstance(error, InvalidRequest):
        error = error.with_field_names(A1111_FIELDS)
    if isinstance(error, UnknownName) and error.field == "sampler_name":
        return 404, A1111Problem(error="HTTPException", detail="Sampler not found", body="", errors=str(error))
    return error.status, A1111Problem(error=type(error).__name__, detail=str(error), body="", errors=str(error))
