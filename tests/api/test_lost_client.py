"""A request whose connection to the client breaks: it is cancelled, once, and its clean-up is finished."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve_app.api.app import create_app
from serve_app.api.middleware.lost_client import LostClientMiddleware
from tests.api.fakes import CONFIG, FakeService

BODY: Message = {"type": "http.request", "body": b'{"prompt": "x"}', "more_body": False}
DISCONNECT: Message = {"type": "http.disconnect"}


class Client:
    """Sends a body, and then what it is told: a message, or an exception as of a proxy that died."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.messages.put_nowait(BODY)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        message = await self.messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Message) -> None:
        self.sent.append(message)


def run(check: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    async def with_client() -> None:
        async with asyncio.timeout(5):
            await check(Client())

    asyncio.run(with_client())


class SlowApp:
    """Answers after a second; its clean-up takes a moment."""

    def __init__(self) -> None:
        self.cancelled = self.cleaned = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            assert await receive() == BODY
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0.05)
            self.cleaned += 1
            raise


def test_a_proxy_that_died_ends_the_request() -> None:
    app = SlowApp()

    async def check(client: Client) -> None:
        answering = asyncio.create_task(LostClientMiddleware(app)({"type": "http"}, client.receive, client.send))
        await asyncio.sleep(0.05)
        client.messages.put_nowait(ConnectionError("the proxy died"))
        with pytest.raises(asyncio.CancelledError):
            await answering

    run(check)
    assert (app.cancelled, app.cleaned) == (1, 1)


def test_who_is_cancelled_twice_cleans_up_once() -> None:
    app = SlowApp()

    async def check(client: Client) -> None:
        answering = asyncio.create_task(LostClientMiddleware(app)({"type": "http"}, client.receive, client.send))
        await asyncio.sleep(0.05)
        client.messages.put_nowait(ConnectionError("the proxy died"))
        answering.cancel()
        await asyncio.sleep(0.01)
        answering.cancel()
        await asyncio.wait([answering])
        await asyncio.sleep(0.1)

    run(check)
    assert (app.cancelled, app.cleaned) == (1, 1)


def test_a_client_that_disconnects_is_left_to_the_server() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive(), await receive()])
        await send({"type": "http.response.start", "status": 200})

    async def check(client: Client) -> None:
        client.messages.put_nowait(DISCONNECT)
        await LostClientMiddleware(app)({"type": "http"}, client.receive, client.send)
        assert client.sent

    run(check)
    assert seen == [BODY, DISCONNECT, DISCONNECT]


def test_what_the_application_raises_is_raised() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("mine")

    async def check(client: Client) -> None:
        with pytest.raises(KeyError, match="mine"):
            await LostClientMiddleware(app)({"type": "http"}, client.receive, client.send)

    run(check)


@pytest.mark.parametrize("path", ["/txt2img/", "/v1/generate", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_every_api_stops_the_image_and_logs_who_was_lost(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="darkroom.access")
    service = FakeService(CONFIG)
    service.delay_s = 60

    async def check(client: Client) -> None:
        app = create_app(service, service.config)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY["body"])).encode())]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
        answering = asyncio.create_task(app({**scope, "client": ("1.2.3.4", 5)}, client.receive, client.send))
        while not service.requests:
            await asyncio.sleep(0.01)
        client.messages.put_nowait(ConnectionError("the proxy died"))
        with pytest.raises(asyncio.CancelledError):
            await answering
        assert (service.closed, client.sent) == (1, [])

    run(check)
    assert '"status": 499' in caplog.messages[-1]
