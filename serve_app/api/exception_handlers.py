"""Exceptions of routes as error responses."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app.api.api_paths import route_path
from serve_app.api.error_responses import error_response, http_error_response
from serve_app.errors import DarkroomError, InvalidRequest, UnreadableBody
from serve_app.requests.params import limit_of


def add_exception_handlers(app: FastAPI) -> None:
    """Answer a DarkroomError, an invalid body and Starlette's HTTPException wherever they are raised."""

    async def on_darkroom_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, DarkroomError)
        return error_response(route_path(request.scope), error)

    async def on_invalid_body(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(route_path(request.scope), first_invalid_field(error))

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == 400:
            # FastAPI's word for a body that is not UTF-8, too deep, or holds a number of thousands of digits.
            return error_response(route_path(request.scope), UnreadableBody())
        return http_error_response(route_path(request.scope), error)

    app.add_exception_handler(DarkroomError, on_darkroom_error)
    app.add_exception_handler(RequestValidationError, on_invalid_body)
    app.add_exception_handler(HTTPException, on_http_error)


def first_invalid_field(error: RequestValidationError) -> InvalidRequest:
    """The first of pydantic's errors as an InvalidRequest."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        position = first["loc"][-1]
        return InvalidRequest("body", f"character {position}", f"must be valid JSON ({first['ctx']['error']})")
    field = ".".join(str(part) for part in first["loc"][1:]) or "body"
    if field == "body":
        return InvalidRequest("body", type(first["input"]).__name__, "must be a JSON object, sent as application/json")
    return InvalidRequest(field, first["input"], limit_of(first["type"], first["msg"], first.get("ctx", {})))
