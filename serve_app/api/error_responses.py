"""Error responses: any error becomes the status, headers and body of the API that was called.

Serve's proxies load this module, too: it imports no FastAPI.
"""

import json
import math
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from serve_app.api.a1111.a1111_errors import A1111Problem, a1111_problem
from serve_app.api.api_paths import api_of, route_path
from serve_app.api.native.native_errors import Problem, ProblemResponse, problem
from serve_app.api.openai.openai_errors import OpenAIProblem, OpenAIProblemResponse, openai_problem
from serve_app.errors import DarkroomError, LimitExceeded, Overloaded, Unauthorized


class ErrorJSONResponse(JSONResponse):
    """JSON of an error. What cannot be written as UTF-8, such as half of a surrogate pair, becomes a question mark."""

    def render(self, content: Any) -> bytes:
        """See `JSONResponse`."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False).encode(errors="replace")


def error_response(path: str, error: DarkroomError) -> JSONResponse:
    """The response to `error` on this path."""
    api = api_of(path)
    headers = {"X-Error": error.code}
    if isinstance(error, Overloaded | LimitExceeded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Basic realm="darkroom"' if api == "a1111" else "Bearer"
    body: BaseModel
    if api == "openai":
        status, body = openai_problem(error)
    elif api == "a1111":
        status, body = a1111_problem(error)
    else:
        status, body = error.status, ProblemResponse(error=problem(error))
    return ErrorJSONResponse(body.model_dump(), status, headers)


def http_error_response(path: str, error: HTTPException) -> JSONResponse:
    """The response to what Starlette itself refuses: an unknown route, a wrong method, a body that is not UTF-8."""
    api, message = api_of(path), str(error.detail)
    body: BaseModel
    if api == "openai":
        fault = OpenAIProblem(message=message, type="invalid_request_error", param=None, code=None)
        body = OpenAIProblemResponse(error=fault)
    elif api == "a1111":
        body = A1111Problem(error="HTTPException", detail=message, body="", errors="")
    else:
        body = ProblemResponse(error=Problem(code="http_error", message=message))
    return ErrorJSONResponse(body.model_dump(), error.status_code, dict(error.headers or {}))


async def internal_error_response(request: Request, _: Exception) -> JSONResponse:
    """The response to an exception that nothing handles. The server logs its traceback; the client does not see it."""
    return error_response(route_path(request.scope), DarkroomError("internal error"))
