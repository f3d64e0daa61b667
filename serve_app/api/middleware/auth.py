"""Authentication: finds the caller of each request, and refuses requests without a valid key where keys are on."""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.error_responses import error_response
from serve_app.api.key_file import KeyFile
from serve_app.api.keys import ANONYMOUS, Caller, find_caller
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.config import CallerLimits
from serve_app.errors import Unauthorized

OPEN_PATHS = ("/healthz", "/readyz")
"""Paths that answer without a key."""
SIGNED_PATHS = "/v1/results/"
"""Paths below this one answer without a key, too: their links are signed."""


class AuthMiddleware:
    """ASGI middleware that puts the `Caller` into the scope.

    Args:
        keys: the key file; None where keys are off, and then everybody may call.
        anonymous: the limits of each address without a key.
    """

    def __init__(self, app: ASGIApp, keys: KeyFile | None, anonymous: CallerLimits) -> None:
        self._app = app
        self._keys = keys
        self._anonymous = anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or call the application with the caller in its scope."""
        caller = anonymous_caller(scope, self._anonymous)
        if scope["type"] == "http" and self._keys is not None:
            try:
                caller = find_caller(Headers(scope=scope).get("authorization"), await self._keys.callers())
            except Unauthorized as error:
                if scope["path"] not in OPEN_PATHS and not scope["path"].startswith(SIGNED_PATHS):
                    await error_response(scope["path"], error)(scope, receive, send)
                    return
        record = scope.get("access_record")
        if isinstance(record, AccessRecord):
            record.key = caller.name
        await self._app({**scope, "caller": caller}, receive, send)


def anonymous_caller(scope: Mapping[str, Any], limits: CallerLimits) -> Caller:
    """The caller of a request without a key. Its name holds the client's address, so it cannot stop others' tasks."""
    client = scope.get("client")
    name = f"{ANONYMOUS.name}@{client[0]}" if client else ANONYMOUS.name
    return Caller(name=name, **limits.model_dump())


def caller_of(scope: Mapping[str, object]) -> Caller:
    """The caller that `AuthMiddleware` put into this scope."""
    caller = scope.get("caller", ANONYMOUS)
    assert isinstance(caller, Caller)
    return caller
