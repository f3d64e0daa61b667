"""ASGI middleware: refuse a large body before anything is parsed."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.problems import problem_response
from serve_app.errors import BodyTooLarge


class BodyLimit:
    """Reads at most `limit` bytes of a request's body, then lets the app have it; over that the answer is 413."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            await problem_response(BodyTooLarge(self._limit))(scope, receive, send)
            return
        replay: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return replay.pop() if replay else await receive()

        await self._app(scope, replayed, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body; None where it is over the limit."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._limit:
                return None
            if not message.get("more_body", False):
                return bytes(body)
