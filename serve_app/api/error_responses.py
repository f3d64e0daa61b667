"""Every error in the shape of the API that was called: ours, OpenAI's, AUTOMATIC1111's."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from serve_app.errors import (
    ContentRefused,
    DarkroomError,
    InvalidRequest,
    LimitExceeded,
    Overloaded,
    Unauthorized,
    UnknownName,
    shorten,
)

OPENAI_PREFIXES = ("/v1/images", "/v1/models")
A1111_PREFIXES = ("/sdapi", "/internal")


OPENAI_FIELDS = {"num_images": "n", "width": "size", "height": "size", "quality": "output_compression"}
A1111_FIELDS = {
    "num_inference_steps": "steps",
    "guidance_scale": "cfg_scale",
    "num_images": "batch_size",
    "strength": "denoising_strength",
    "sampler": "sampler_name",
    "image": "init_images",
    "model": "override_settings.sd_model_checkpoint",
    "clip_skip": "override_settings.CLIP_stop_at_last_layers",
    "hires.scale": "hr_scale",
    "hires.width": "hr_resize_x",
    "hires.height": "hr_resize_y",
    "hires.strength": "denoising_strength",
    "hires.num_inference_steps": "hr_second_pass_steps",
}
"""Our names of fields to those that the caller of another API used."""


class Problem(BaseModel):
    """What went wrong, and with which field."""

    code: Annotated[str, Field(description="Which kind it is.")]
    message: Annotated[str, Field(description="It in words: field, limit and value.")]
    field: Annotated[str | None, Field(description="The field, by the name the caller used.")] = None
    value: Annotated[Any, Field(description="What was sent, shortened.")] = None
    limit: Annotated[str | None, Field(description="What would be accepted.")] = None


class ProblemResponse(BaseModel):
    """The body of every answer of our own routes that is not a success."""

    error: Annotated[Problem, Field(description="What went wrong.")]


class OpenAIProblem(BaseModel):
    """OpenAI's error: all four keys, always."""

    message: Annotated[str, Field(description="It in words: field, limit and value.")]
    type: Annotated[str, Field(description="Its class, as OpenAI names them.")]
    param: Annotated[str | None, Field(description="The field.")]
    code: Annotated[str | None, Field(description="Which kind it is.")]


class OpenAIProblemResponse(BaseModel):
    """The body of every answer of an OpenAI route that is not a success."""

    error: Annotated[OpenAIProblem, Field(description="What went wrong.")]


class A1111Problem(BaseModel):
    """AUTOMATIC1111's error."""

    error: Annotated[str, Field(description="What went wrong.")]
    detail: Annotated[str, Field(description="It in words.")]
    body: Annotated[str, Field(description="Always empty.")]
    errors: Annotated[str, Field(description="It in words.")]


def answer(path: str, error: DarkroomError) -> JSONResponse:
    """The response to `error` on this path, with its status and headers."""
    headers = {"X-Error": error.code}
    if isinstance(error, Overloaded | LimitExceeded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Basic realm="darkroom"' if path.startswith(A1111_PREFIXES) else "Bearer"
    status, body = _shape(path, error)
    return JSONResponse(body.model_dump(), status, headers)


def _shape(path: str, error: DarkroomError) -> tuple[int, BaseModel]:
    if path.startswith(OPENAI_PREFIXES):
        return openai_problem(error)
    if path.startswith(A1111_PREFIXES):
        return a1111_problem(error)
    return error.status, ProblemResponse(error=problem(error))


def http_answer(path: str, status: int, message: str, headers: Mapping[str, str] | None) -> JSONResponse:
    """The response to what the framework itself refuses: no such route or method, a body that is no text."""
    if path.startswith(OPENAI_PREFIXES):
        kind = OpenAIProblem(message=message, type="invalid_request_error", param=None, code=None)
        body: BaseModel = OpenAIProblemResponse(error=kind)
    elif path.startswith(A1111_PREFIXES):
        body = A1111Problem(error="HTTPException", detail=message, body="", errors="")
    else:
        body = ProblemResponse(error=Problem(code="http_error", message=message))
    return JSONResponse(body.model_dump(), status, dict(headers or {}))


def problem(error: DarkroomError) -> Problem:
    """Our own shape."""
    if isinstance(error, InvalidRequest):
        return Problem(
            code=error.code, message=str(error), field=error.field, value=_plain(error.value), limit=error.limit
        )
    return Problem(code=error.code, message=str(error))


def in_words_of(names: Mapping[str, str], error: DarkroomError) -> DarkroomError:
    """The error, its field by the caller's name."""
    if isinstance(error, InvalidRequest) and error.field in names:
        return type(error)(names[error.field], error.value, error.limit)
    return error


def openai_problem(error: DarkroomError) -> tuple[int, OpenAIProblemResponse]:
    """OpenAI answers 400 to what we call 422, and 404 to an unknown model."""
    error = in_words_of(OPENAI_FIELDS, error)
    status, kind, param, code = error.status, "server_error", None, error.code
    if isinstance(error, InvalidRequest):
        missing = isinstance(error, UnknownName) and error.field == "model"
        status, code = (404, "model_not_found") if missing else (400, error.code)
        kind, param = "invalid_request_error", error.field
    elif isinstance(error, ContentRefused):
        status, kind, code = 400, "image_generation_user_error", "content_policy_violation"
    elif isinstance(error, Unauthorized):
        kind, code = "invalid_request_error", "invalid_api_key"
    elif status < 500:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    return status, OpenAIProblemResponse(error=OpenAIProblem(message=str(error), type=kind, param=param, code=code))


def a1111_problem(error: DarkroomError) -> tuple[int, A1111Problem]:
    """An unknown sampler is 404 there."""
    error = in_words_of(A1111_FIELDS, error)
    if isinstance(error, UnknownName) and error.field == "sampler_name":
        return 404, A1111Problem(error="HTTPException", detail="Sampler not found", body="", errors=str(error))
    return error.status, A1111Problem(error=type(error).__name__, detail=str(error), body="", errors=str(error))


def _plain(value: object) -> object:
    """`value` where JSON can carry it, else its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else shorten(repr(value))
