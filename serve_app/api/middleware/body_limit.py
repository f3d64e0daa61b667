"""Limits of request bodies: a large or slow body is refused before anything is parsed."""

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.error_responses import error_response
from serve_app.errors import BodyTooLarge, BodyTooSlow


class BodyLimitMiddleware:
    """ASGI middleware that reads the whole body first.

    It answers 413 to a body over `max_bytes`, and 408 to a body that has not arrived after `timeout_s` seconds. Where
    the client disconnects before its body is complete, nothing is answered and the application is not called.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 408 or 413, or call the application with the body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except ClientDisconnect:
            return
        except (BodyTooLarge, BodyTooSlow) as error:
            await error_response(scope["path"], error)(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, receive_again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body; raises BodyTooLarge, BodyTooSlow and ClientDisconnect."""
        stated = Headers(scope=scope).get("content-length", "0")
        if stated.isdecimal() and int(stated) > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        try:
            return await asyncio.wait_for(self._read_chunks(receive), self._timeout_s)
        except TimeoutError:
            raise BodyTooSlow(self._timeout_s) from None

    async def _read_chunks(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            if not message.get("more_body", False):
                return bytes(body)
