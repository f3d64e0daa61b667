"""An app over a service that draws nothing: what it was asked is kept, what it answers is set by the test."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from starlette.testclient import TestClient

from serve_app.api.app import create_app
from serve_app.config import AppConfig
from serve_app.engine.images import encode_image
from serve_app.engine.request import Event, GeneratedImage, GenerationRequest, Progress, Timings

CONFIG = AppConfig.model_validate(
    {
        "default_model": "emoji",
        "ingress": {"max_body_bytes": 64 * 1024},
        "models": {
            "emoji": {"source": "builtin:emoji", "native_size": 128, "defaults": {"guidance_scale": 4.0}},
            "other": {"source": "/nowhere", "defaults": {"num_inference_steps": 4}},
        },
    }
)


class FakeService:
    """A `Service`."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.requests: list[GenerationRequest] = []
        self.error: Exception | None = None
        self.missing: list[str] = []
        self.closed = 0

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.requests.append(request)
        try:
            await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            yield Progress(1, 2)
            picture = np.zeros((request.height, request.width, 3), np.uint8)
            content = encode_image(picture, request.output)
            size = request.output.width, request.output.height
            timings = Timings(0.001, 0.002, 0.003, 0.004)
            yield GeneratedImage(content, request.output.format, *size, request.seed, timings)
        finally:
            self.closed += 1

    async def warming_up(self) -> list[str]:
        return self.missing


def fake_app() -> tuple[TestClient, FakeService]:
    service = FakeService()
    return TestClient(create_app(service), raise_server_exceptions=False), service
