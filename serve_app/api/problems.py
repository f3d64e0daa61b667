"""Errors as JSON: `{"error": {"code", "message", "field", "value", "limit"}}`, the last three where they apply."""

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serve_app.errors import DarkroomError, InvalidRequest, Overloaded, shorten


class Problem(BaseModel):
    """What went wrong, and with which field."""

    code: str
    message: str
    field: str | None = None
    value: Any = None
    limit: str | None = None


class ProblemResponse(BaseModel):
    """The body of every answer that is not a success."""

    error: Problem


def problem_response(error: DarkroomError) -> JSONResponse:
    """The answer to a DarkroomError, with its class's status."""
    problem = Problem(code=error.code, message=str(error))
    if isinstance(error, InvalidRequest):
        problem = Problem(
            code=error.code, message=str(error), field=error.field, value=_plain(error.value), limit=error.limit
        )
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else None
    return JSONResponse(ProblemResponse(error=problem).model_dump(), error.status, headers)


def install(app: FastAPI) -> None:
    """Answer every kind of error in this one shape."""

    async def on_darkroom_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, DarkroomError)
        return problem_response(error)

    async def on_invalid_body(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return problem_response(_first_problem(error))

    async def on_http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        problem = Problem(code="http_error", message=str(error.detail))
        return JSONResponse(ProblemResponse(error=problem).model_dump(), error.status_code, error.headers)

    async def on_bug(_: Request, __: Exception) -> JSONResponse:
        return problem_response(DarkroomError("internal error"))  # the traceback is in the log, not in the answer

    app.add_exception_handler(DarkroomError, on_darkroom_error)
    app.add_exception_handler(Exception, on_bug)
    app.add_exception_handler(RequestValidationError, on_invalid_body)
    app.add_exception_handler(HTTPException, on_http_error)


def _first_problem(error: RequestValidationError) -> InvalidRequest:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        position = first["loc"][-1]
        return InvalidRequest("body", f"character {position}", f"must be valid JSON ({first['ctx']['error']})")
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    if field == "body":
        return InvalidRequest("body", type(first["input"]).__name__, "must be a JSON object, sent as application/json")
    return InvalidRequest(field, first["input"], _sentence(first["type"], first["msg"]))


def _sentence(kind: str, message: str) -> str:
    """Pydantic's message as a limit: "must be ..."."""
    known = {"missing": "must be given", "extra_forbidden": "is not a field of this request"}
    return known.get(kind, message.replace("Input should", "must"))


def _plain(value: object) -> object:
    """`value` where JSON can carry it, else its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else shorten(repr(value))
