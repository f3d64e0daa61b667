"""`PooledRoute`: FastAPI's route, but bodies are parsed and validated in the `WorkerPool`, and dropped once they are.

FastAPI parses on the event loop, where base64 text of 20 MB, a form or deeply nested JSON stops all other requests. It
also keeps the raw body until the response is complete.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from email.message import Message as ContentType
from typing import Any

from fastapi import Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.types import Message, Scope

from serve_app.api.middleware.auth import caller_of
from serve_app.api.worker_pool import WorkerPool
from serve_app.errors import UnreadableBody

INLINE_BYTES = 32 * 1024
"""Smaller bodies are parsed at once: waiting for a thread would take longer."""
MAX_FILES = 16
"""The most files in a form. A file over a megabyte is kept on disk until the response is complete."""
PARSED = b"{}"
"""Stands for a body that was parsed and dropped. FastAPI looks only whether there is one."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PooledRoute(APIRoute):
    """A route of `APIRouter(route_class=PooledRoute)`. The application's `state.workers` is its pool."""

    def get_route_handler(self) -> Handler:
        """See `APIRoute`."""
        handler, field = super().get_route_handler(), self.body_field
        if field is None:
            return handler

        async def handle(request: Request) -> Response:
            if isinstance(field.field_info, params.Form):
                return await handler(await _with_form(request))
            if not _is_json(request.headers.get("content-type", "")):
                return await handler(ReadRequest(request, body=await _read(request)))
            return await handler(await _with_json(request, field))

        return handle


class ReadRequest(Request):
    """A request whose body was read. What FastAPI asks of it is there already."""

    def __init__(self, request: Request, *, body: bytes, parsed: Any = None, form: FormData | None = None) -> None:
        super().__init__(request.scope, request.receive)
        self._body, self._json, self._form = body, parsed, form


async def _with_json(request: Request, field: Any) -> ReadRequest:
    """Raises RequestValidationError and UnreadableBody."""
    content = [await _read(request)]
    if not content[0]:
        return ReadRequest(request, body=b"")
    return ReadRequest(request, body=PARSED, parsed=await _run(request, len(content[0]), _parse_json, content, field))


async def _with_form(request: Request) -> ReadRequest:
    """Raises Starlette's HTTPException."""
    content = [await _read(request)]
    form = await _run(request, len(content[0]), _parse_form, content, request.scope)
    return ReadRequest(request, body=PARSED, form=form)


async def _run(
    request: Request, size: int, parse: Callable[[list[bytes], Any], Any], content: list[bytes], by: Any
) -> Any:
    workers = request.app.state.workers
    assert isinstance(workers, WorkerPool)
    # Parsing a form needs an event loop of its own.
    if size <= INLINE_BYTES and parse is not _parse_form:
        return parse(content, by)
    return await workers.run(caller_of(request.scope).name, parse, content, by)


async def _read(request: Request) -> bytes:
    """The raw body. The request itself does not keep it."""
    return b"".join([chunk async for chunk in request.stream()])


def _is_json(content_type: str) -> bool:
    """As FastAPI decides it."""
    header = ContentType()
    header["content-type"] = content_type
    subtype = header.get_content_subtype()
    return header.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _parse_json(content: list[bytes], field: Any) -> Any:
    """The validated body. `content` holds the raw one, and is empty afterwards."""
    try:
        values = json.loads(content.pop())
    except json.JSONDecodeError as error:
        mistake = {"type": "json_invalid", "loc": ("body", error.pos), "input": {}, "ctx": {"error": error.msg}}
        raise RequestValidationError([mistake]) from None
    except (ValueError, RecursionError):
        raise UnreadableBody from None
    if values is None:
        return None
    body, mistakes = field.validate(values, {}, loc=("body",))
    if mistakes:
        raise RequestValidationError(mistakes)
    return body


def _parse_form(content: list[bytes], scope: Scope) -> FormData:
    """The form's texts and files. `content` holds the raw body, and is empty afterwards."""

    async def receive() -> Message:
        return {"type": "http.request", "body": content.pop()}

    async def parse() -> FormData:
        return await Request(scope, receive).form(max_files=MAX_FILES)

    return asyncio.run(parse())
