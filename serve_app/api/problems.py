"""Errors raised anywhere in the HTTP application, answered in the shape of the API that was called."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app.api.error_responses import answer, http_answer
from serve_app.errors import DarkroomError, InvalidRequest


def install(app: FastAPI) -> None:
    """Answer every kind of error."""

    async def on_darkroom_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, DarkroomError)
        return answer(request.url.path, error)

    async def on_invalid_body(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer(request.url.path, _first_problem(error))

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return http_answer(request.url.path, error.status_code, str(error.detail), error.headers)

    async def on_bug(request: Request, _: Exception) -> JSONResponse:
        # The traceback is in the log, not in the answer.
        return answer(request.url.path, DarkroomError("internal error"))

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
