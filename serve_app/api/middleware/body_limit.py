"""Limits of request bodies: a large or slow body is refused before anything is parsed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.api_paths import route_path
from serve_app.api.error_responses import error_response
from serve_app.api.middleware.auth import network_of
from serve_app.api.middleware.body_budget import BodyBudget, HeldBody
from serve_app.errors import BodyTooLarge, BodyTooSlow, DarkroomError, Overloaded

Refuse = Callable[[DarkroomError, Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class BodyLimits:
    """The largest body in bytes, and the seconds in which it must arrive."""

    max_bytes: int
    timeout_s: float


async def send_refusal(error: DarkroomError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error."""
    await error_response(route_path(scope), error)(scope, receive, send)


def owner_of(scope: Scope) -> str:
    """Whose body it is, as far as that is known before it is read: the key, else the address."""
    client = scope.get("client")
    return Headers(scope=scope).get("authorization") or (network_of(client[0]) if client else "")


class BodyLimitMiddleware:
    """ASGI middleware that reads the whole body first.

    It answers 413 to a body over `limits.max_bytes`, 408 to one that has not arrived in time, and 429 to one for which
    the budget had no room in that time. Where the client disconnects before its body is complete, nothing is answered
    and the application is not called.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits, budget: BodyBudget, refuse: Refuse = send_refusal) -> None:
        self._app = app
        self._limits = limits
        self._budget = budget
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 408, 413 or 429, or call the application with the body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = HeldBody(owner_of(scope))
        try:
            try:
                await self._read(scope, receive, body)
            except ClientDisconnect:
                return
            except (BodyTooLarge, BodyTooSlow, Overloaded) as error:
                await self._refuse(error, scope, receive, send)
                return
            await self._app(scope, self._replay(body, receive), self._release_with_response(body, send))
        finally:
            self._budget.release(body)

    async def _read(self, scope: Scope, receive: Receive, body: HeldBody) -> None:
        """Read the whole body; raises BodyTooLarge, BodyTooSlow, Overloaded and ClientDisconnect."""
        stated = Headers(scope=scope).get("content-length", "0")
        if stated.isdecimal() and (len(stated) > 18 or int(stated) > self._limits.max_bytes):
            raise BodyTooLarge(self._limits.max_bytes)
        self._budget.begin(body)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                await self._read_chunks(receive, body)
        except TimeoutError:
            raise Overloaded(1) if body.waits_for_room else BodyTooSlow(self._limits.timeout_s) from None
        self._budget.finish(body)

    async def _read_chunks(self, receive: Receive, body: HeldBody) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            if body.counted + len(chunk) > self._limits.max_bytes:
                raise BodyTooLarge(self._limits.max_bytes)
            await self._budget.add(body, chunk)
            more = message.get("more_body", False)

    @staticmethod
    def _replay(body: HeldBody, receive: Receive) -> Receive:
        """The parts of the body, and then what else is received."""
        parts = body.take_parts()

        async def receive_again() -> Message:
            for part, more in parts:
                return {"type": "http.request", "body": part, "more_body": more}
            return await receive()

        return receive_again

    def _release_with_response(self, body: HeldBody, send: Send) -> Send:
        """The body has been used when the response begins."""

        async def send_and_release(message: Message) -> None:
            self._budget.release(body)
            await send(message)

        return send_and_release
