"""What stands before Ray Serve: a body that will be refused is refused before Serve has read it."""

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.api_paths import route_path
from serve_app.api.error_responses import error_response
from serve_app.api.key_file import KeyFile
from serve_app.api.keys import find_caller
from serve_app.api.middleware.access_log import AccessLogMiddleware
from serve_app.api.middleware.body_budget import BodyBudget
from serve_app.api.middleware.body_limit import BodyLimitMiddleware, BodyLimits
from serve_app.api.middleware.serve_headers import without_serve_headers
from serve_app.config import EdgeSettings
from serve_app.errors import ConfigError, DarkroomError, Unauthorized

RETRY_SECONDS = 10.0
"""How often a key file that could not be read is tried again."""

log = logging.getLogger("darkroom.edge")
access_log = logging.getLogger("darkroom.access")


class EdgeMiddleware:
    """ASGI middleware in front of Serve, in the proxy's process.

    It takes out the headers that Serve obeys. A request with a body needs a valid key where keys are on, and its body
    is held within the limits. A request without a body passes: the application decides about it.

    Args:
        read_settings: the settings in force.
    """

    def __init__(self, app: ASGIApp, read_settings: Callable[[], Awaitable[EdgeSettings]]) -> None:
        self._app = app
        self._read_settings = read_settings
        self._budget = BodyBudget(0)
        self._keys_path: str | None = None
        self._keys: KeyFile | None = None
        self._tried_at = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 408, 413 or 429 with a line in the access log, or call Serve."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": without_serve_headers(scope["headers"])}
        if scope["type"] == "websocket" or not has_body(scope):
            await self._app(scope, receive, send)
            return
        settings = await self._read_settings()
        try:
            await self._check_key(settings, scope)
        except Unauthorized as error:
            await _refuse(error, scope, receive, send)
            return
        self._budget.max_bytes = settings.max_total_body_bytes
        limits = BodyLimits(settings.max_body_bytes, settings.body_timeout_s)
        await BodyLimitMiddleware(self._app, limits, self._budget, _refuse)(scope, receive, send)

    async def _check_key(self, settings: EdgeSettings, scope: Scope) -> None:
        """Raise Unauthorized where the key file is readable here and has no such key."""
        now = time.monotonic()
        if settings.keys_file != self._keys_path or (self._keys is None and now - self._tried_at > RETRY_SECONDS):
            self._keys_path, self._tried_at = settings.keys_file, now
            self._keys = _open_keys(settings.keys_file)
        if self._keys is not None:
            find_caller(Headers(scope=scope).get("authorization"), await self._keys.callers())


def has_body(scope: Scope) -> bool:
    """Whether a request's headers announce a body."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""


def _open_keys(path: str | None) -> KeyFile | None:
    if path is None:
        return None
    try:
        return KeyFile(Path(path))
    except ConfigError as error:
        log.warning("keys are checked only after bodies are read: %s", error)
        return None


async def _refuse(error: DarkroomError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error, an `X-Request-ID` and a line in the access log: the application does not hear of it."""
    response = error_response(route_path(scope), error)
    await AccessLogMiddleware(response, access_log, lambda _: None)(scope, receive, send)
