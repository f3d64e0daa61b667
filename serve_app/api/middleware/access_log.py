"""One JSON line for each request, and `X-Request-ID` in and out. Never a key; prompts only where configured."""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.callers import caller_of

SOUND_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLogMiddleware:
    """ASGI middleware, outermost: it sees every answer, refusals too."""

    def __init__(self, app: ASGIApp, log: logging.Logger, note: Callable[[dict[str, object]], None]) -> None:
        self._app = app
        self._log = log
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if SOUND_ID.fullmatch(asked) else uuid.uuid4().hex
        began = time.monotonic()
        line: dict[str, object] = {"request_id": request_id, "method": scope["method"], "path": scope["path"]}
        scope = {**scope, "log_line": line}

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                line["status"] = message["status"]
                for name in ("x-seed", "x-model", "server-timing", "x-error"):
                    if name in headers:
                        line[name.removeprefix("x-").replace("-", "_")] = headers[name]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            line["seconds"] = round(time.monotonic() - began, 4)
            line["key"] = line.get("key", caller_of(scope).name)
            self._log.info(json.dumps(line))
            self._note(line)
