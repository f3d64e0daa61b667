"""Authentication: finds the caller of each request, and refuses requests without a valid key where keys are on."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.error_responses import error_response
from serve_app.api.keys import ANONYMOUS, Caller, find_caller
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.errors import Unauthorized

OPEN_PATHS = ("/healthz", "/readyz")
"""Paths that answer without a key."""


class AuthMiddleware:
    """ASGI middleware that puts the `Caller` into the scope.

    Args:
        callers: the key file's entries; None where keys are off, and then everybody may call.
    """

    def __init__(self, app: ASGIApp, callers: list[Caller] | None) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or call the application with the caller in its scope."""
        caller = anonymous_caller(scope)
        if scope["type"] == "http" and self._callers is not None:
            try:
                caller = find_caller(Headers(scope=scope).get("authorization"), self._callers)
            except Unauthorized as error:
                if scope["path"] not in OPEN_PATHS:
                    await error_response(scope["path"], error)(scope, receive, send)
                    return
        record = scope.get("access_record")
        if isinstance(record, AccessRecord):
            record.key = caller.name
        await self._app({**scope, "caller": caller}, receive, send)


def anonymous_caller(scope: Mapping[str, Any]) -> Caller:
    """The caller of a request without a key. Its name holds the client's address, so it cannot stop others' tasks."""
    client = scope.get("client")
    return Caller(name=f"anyone@{client[0]}") if client else ANONYMOUS


def caller_of(scope: Mapping[str, object]) -> Caller:
    """The caller that `AuthMiddleware` put into this scope."""
    caller = scope.get("caller", ANONYMOUS)
    assert isinstance(caller, Caller)
    return caller
