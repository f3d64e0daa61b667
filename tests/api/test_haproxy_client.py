"""Whom limits count behind HAProxy: the address that HAProxy saw, or what a trusted load balancer said."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from serve_app.api.middleware.haproxy_client import HAProxyClientMiddleware


@pytest.mark.parametrize(
    ("trusted", "told", "client"),
    [
        ("", [b"192.0.2.7"], "192.0.2.7"),
        ("", [b"198.51.100.1", b"192.0.2.7"], "192.0.2.7"),
        ("", [b"198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.5", [b"198.51.100.1, 203.0.113.9", b"10.0.0.5"], "203.0.113.9"),
        ("", [], "172.16.0.1"),
    ],
)
def test_the_last_address_is_the_client(trusted: str, told: list[bytes], client: str) -> None:
    seen = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["client"][0])

    headers = [(b"x-forwarded-for", one) for one in told]
    scope = {"type": "http", "scheme": "http", "client": ("172.16.0.1", 5), "headers": headers}
    asyncio.run(HAProxyClientMiddleware(application, trusted)(scope, None, None))  # type: ignore[arg-type]
    assert seen == [client]
