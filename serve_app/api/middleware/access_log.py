"""The access log: one JSON line for each request, and the `X-Request-ID` header. It holds no keys and no prompts."""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.keys import ANONYMOUS
from serve_app.errors import shorten

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Request ids that are taken over from the caller."""

MAX_PATH_CHARACTERS = 200

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that disconnected before it was answered."""


@dataclass
class AccessRecord:
    """What is logged about one request. Fields that the request does not have are None."""

    request_id: str
    method: str
    path: str
    key: str = ANONYMOUS.name
    status: int = CLIENT_CLOSED_REQUEST
    seconds: float = 0.0
    seed: str | None = None
    model: str | None = None
    server_timing: str | None = None
    error: str | None = None
    trace_id: str | None = None

    def read_response(self, status: int, headers: Headers) -> None:
        """Take over what the response says: its status, and the headers that are logged."""
        self.status = status
        self.seed = headers.get("x-seed")
        self.model = headers.get("x-model")
        self.server_timing = headers.get("server-timing")
        self.error = headers.get("x-error")

    def to_json(self) -> str:
        """One line of JSON without the fields that are None."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})


class AccessLogMiddleware:
    """ASGI middleware. It must enclose all others, the one that answers exceptions included, to see every response.

    Args:
        logger: gets one line for each request.
        count_response: is called with each finished record.
        server_sends_request_id: True where the server in front sets `X-Request-ID` on requests and responses, as Ray
            Serve's proxy does. Then this middleware logs the id of the request, and adds no second header.
    """

    def __init__(
        self,
        app: ASGIApp,
        logger: logging.Logger,
        count_response: Callable[[AccessRecord], None],
        server_sends_request_id: bool = False,
    ) -> None:
        self._app = app
        self._logger = logger
        self._count_response = count_response
        self._server_sends_request_id = server_sends_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with an `AccessRecord` in its scope, then log the record."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(shorten(scope["path"], MAX_PATH_CHARACTERS))
        record = AccessRecord(request_id=self._request_id(scope), method=scope["method"], path=path)
        began = time.monotonic()

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                record.read_response(message["status"], headers)
                if not self._server_sends_request_id:
                    headers["X-Request-ID"] = record.request_id
            await send(message)

        try:
            await self._app({**scope, "access_record": record}, receive, send_and_record)
        finally:
            record.seconds = round(time.monotonic() - began, 4)
            self._logger.info(record.to_json())
            self._count_response(record)

    def _request_id(self, scope: Scope) -> str:
        """The caller's id where it can be used, else a new one."""
        sent = Headers(scope=scope).get("x-request-id", "")
        usable = bool(sent) if self._server_sends_request_id else REQUEST_ID.fullmatch(sent)
        return sent if usable else uuid.uuid4().hex
