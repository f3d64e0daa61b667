"""FastAPI in front of a function that draws one image: what the peers without batching serve."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response


def create_app(draw: Callable[[Mapping[str, Any]], bytes]) -> FastAPI:
    """`draw` takes the body of `POST /txt2img/` and gives a PNG; FastAPI calls it in its thread pool."""
    app = FastAPI()

    @app.post("/txt2img/")
    def txt2img(body: dict[str, Any]) -> Response:
        return Response(draw(body), media_type="image/png")

    @app.get("/readyz")
    def readyz() -> str:
        return "ready"

    return app
