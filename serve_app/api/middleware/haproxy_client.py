"""Behind HAProxy every connection comes from HAProxy: the client is the one that it names."""

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


class HAProxyClientMiddleware:
    """ASGI middleware. HAProxy appends the address of its peer to X-Forwarded-For: the last one is the client.

    What stands before it is the caller's own word. It counts where `trusted` names that peer, a load
    balancer before HAProxy, as it does for uvicorn where there is no HAProxy.

    Args:
        app: the application.
        trusted: the addresses of such load balancers, as uvicorn reads them.
    """

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        self._app: ASGIApp = ProxyHeadersMiddleware(app, trusted)  # type: ignore[assignment]  # uvicorn's own types

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the client's address in the scope."""
        if scope["type"] in ("http", "websocket"):
            told = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
            client = told.rpartition(b",")[2].strip().decode("latin-1")
            if client:
                scope = {**scope, "client": (client, 0)}
        await self._app(scope, receive, send)  # type: ignore[arg-type]
