"""A request ends where its connection to the client is lost without a word: when the proxy's process has died."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LostClientMiddleware:
    """ASGI middleware that cancels a request once `receive` raises.

    Serve cancels requests of clients that disconnect. A proxy that dies tells nothing: from then on `receive` raises,
    and only a response that reads it would notice. The body must have been read: it is held again until the
    application asks for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; raise CancelledError where the client is lost."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received: asyncio.Queue[Message] = asyncio.Queue()
        watching = asyncio.create_task(_read_all(receive, received))

        async def receive_again() -> Message:
            return {"type": "http.disconnect"} if watching.done() and received.empty() else await received.get()

        # A task of its own, so that it is cancelled once, whoever is the first to notice.
        answering = asyncio.ensure_future(self._app(scope, receive_again, send))
        watching.add_done_callback(lambda task: answering.cancel() if _failed(task) else None)
        try:
            await asyncio.wait([answering])
        finally:
            watching.cancel()
            if not answering.done():
                answering.cancel()
                await asyncio.wait([answering])
        answering.result()


async def _read_all(receive: Receive, received: "asyncio.Queue[Message]") -> None:
    """Move the parts of the body, and the one message that follows them."""
    kind, more = "http.request", True
    while more:
        message = await receive()
        received.put_nowait(message)
        kind, more = message["type"], message.get("more_body", False)
    if kind == "http.request":
        received.put_nowait(await receive())


def _failed(task: "asyncio.Task[None]") -> bool:
    return not task.cancelled() and task.exception() is not None
