"""ASGI middleware: refuse a large body, or one that trickles in, before anything is parsed."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.error_responses import answer
from serve_app.errors import BodyTooLarge, BodyTooSlow


class BodyLimitMiddleware:
    """Reads at most `limit` bytes of a request's body, then lets the app have it; over that the answer is 413.

    A body that has not arrived after `seconds` is answered 408.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            stated = Headers(scope=scope).get("content-length", "0")
            if stated.isdigit() and int(stated) > self._limit:
                raise BodyTooLarge(self._limit)
            body = await asyncio.wait_for(self._read(receive), self._seconds)
        except TimeoutError:
            await answer(scope["path"], BodyTooSlow(self._seconds))(scope, receive, send)
            return
        except BodyTooLarge as error:
            await answer(scope["path"], error)(scope, receive, send)
            return
        replay: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return replay.pop() if replay else await receive()

        await self._app(scope, replayed, send)

    async def _read(self, receive: Receive) -> bytes:
        """The whole body; raises BodyTooLarge."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise BodyTooLarge(self._limit)
            if not message.get("more_body", False):
                return bytes(body)
