"""The shape of errors of Darkroom's own API."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, Field

from serve_app.errors import DarkroomError, InvalidRequest, shorten


class Problem(BaseModel):
    """One error: its kind, and the field that is wrong if there is one."""

    code: Annotated[str, Field(description="The kind of error, such as `invalid_request`.")]
    message: Annotated[str, Field(description="The error as a sentence: field, limit and value.")]
    field: Annotated[str | None, Field(description="The field that is wrong.")] = None
    value: Annotated[Any, Field(description="The value that was sent, shortened if it is long.")] = None
    limit: Annotated[str | None, Field(description="What the field accepts.")] = None


class ProblemResponse(BaseModel):
    """The body of every error response."""

    error: Annotated[Problem, Field(description="The error.")]


def problem(error: DarkroomError) -> Problem:
    """Any error as a `Problem`."""
    if isinstance(error, InvalidRequest):
        value = _json_value(error.value)
        return Problem(code=error.code, message=str(error), field=error.field, value=value, limit=error.limit)
    return Problem(code=error.code, message=str(error))


def _json_value(value: object) -> object:
    """`value` if it is JSON, else its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else shorten(repr(value))
