"""The shape of errors of the OpenAI API."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from serve_app.errors import (
    ContentRefused,
    DarkroomError,
    InvalidIdempotencyKey,
    InvalidRequest,
    Unauthorized,
    UnknownName,
)

OPENAI_FIELDS = {"num_images": "n", "width": "size", "height": "size", "quality": "output_compression"}
"""Darkroom's names of fields, and OpenAI's."""


class OpenAIProblem(BaseModel):
    """OpenAI's error object. All four keys are always there."""

    message: Annotated[str, Field(description="The error as a sentence: field, limit and value.")]
    type: Annotated[str, Field(description="OpenAI's class of the error, such as `invalid_request_error`.")]
    param: Annotated[str | None, Field(description="The field that is wrong.")]
    code: Annotated[str | None, Field(description="The kind of error, such as `model_not_found`.")]


class OpenAIProblemResponse(BaseModel):
    """The body of every error response of an OpenAI route."""

    error: Annotated[OpenAIProblem, Field(description="The error.")]


OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIProblemResponse, "description": text}
    for status, text in {
        400: "A field is missing or invalid, or the safety checker refused the image.",
        401: "The key is missing or unknown.",
        404: "The model is unknown.",
        409: "The request was stopped by its owner.",
        413: "The body is too large.",
        422: "The `Idempotency-Key` is invalid, or another request has it.",
        429: "The queue is full, or the key has reached one of its limits.",
        500: "The image could not be generated.",
        503: "The model is warming up or shutting down.",
    }.items()
}
"""The error responses of OpenAI routes, for OpenAPI."""


def openai_problem(error: DarkroomError) -> tuple[int, OpenAIProblemResponse]:
    """Status and body. Where Darkroom's own status is 422 OpenAI's is 400, or 404 for an unknown model.

    OpenAI has no `Idempotency-Key` of its own: errors of that header stay 422.
    """
    status, kind, param, code = error.status, "server_error", None, error.code
    if isinstance(error, InvalidRequest):
        error = error.with_field_names(OPENAI_FIELDS)
        missing = isinstance(error, UnknownName) and error.field == "model"
        if not isinstance(error, InvalidIdempotencyKey):
            status, code = (404, "model_not_found") if missing else (400, error.code)
        kind, param = "invalid_request_error", error.field
    elif isinstance(error, ContentRefused):
        status, kind, code = 400, "image_generation_user_error", "content_policy_violation"
    elif isinstance(error, Unauthorized):
        kind, code = "invalid_request_error", "invalid_api_key"
    elif status < 500:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    return status, OpenAIProblemResponse(error=OpenAIProblem(message=str(error), type=kind, param=param, code=code))
