"""The ASGI application that the ingress hands to Serve, whatever its config says at the moment."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from serve_app.errors import NotReady


class CurrentApp:
    """Serve takes the application once, before the first config. A request keeps the application it came to."""

    def __init__(self) -> None:
        self._app: FastAPI | None = None

    def swap(self, app: FastAPI) -> None:
        """Let `app` have all further requests."""
        self._app = app

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """Serve tags its metrics by these."""
        return self._app.routes if self._app is not None else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif self._app is None:
            raise NotReady("the ingress has no config yet")
        else:
            await self._app(scope, receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        """Answer start and end. The applications themselves have nothing to start."""
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
