"""An app over a service that draws nothing: what it was asked is kept, what it answers is set by the test."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from serve_app.api.app import create_app
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.config import IngressConfig
from serve_app.errors import Cancelled, ConfigError
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import Event, GeneratedImage, MemoryUse, Progress, Queued, Timings
from serve_app.requests.image_files import OutputSpec, encode_image
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest

CONFIG = IngressConfig.model_validate(
    {
        "max_body_bytes": 64 * 1024,
        "anonymous": {"rate": None, "concurrency": None},
        "models": {
            "emoji": {"defaults": {"guidance_scale": 4.0}},
            "other": {"defaults": {"num_inference_steps": 4}},
        },
        "aliases": {"dall-e-3": "emoji"},
        "presets": {"avatar": {"prompt": "portrait of {subject}, comic style", "num_inference_steps": 7}},
    }
)
PUBLISHED = {"emoji": ModelCapabilities(source="builtin:emoji", native_size=128), "other": ModelCapabilities()}

PREVIEW = encode_image(np.zeros((8, 8, 3), np.uint8), OutputSpec(8, 8))


class FakeService:
    """A `Service`."""

    models = ("emoji", "other")

    def __init__(self, config: IngressConfig = CONFIG) -> None:
        self.config = config
        self.published = dict(PUBLISHED)
        self.requests: list[GenerationRequest] = []
        self.contexts: list[CallerContext] = []
        self.running: dict[tuple[str, str], Queued | Progress] = {}
        self.checked: list[tuple[str, CallerContext]] = []
        self.cut: list[tuple[str, str]] = []
        self.stopped_seeds: set[int] = set()
        self.machines = [MemoryUse("a", 2, 100), MemoryUse("a", 3, 100)]
        self.delay_s = 0.0
        self.error: Exception | None = None
        self.late_error: Exception | None = None
        self.missing: list[str] = []
        self.mistakes: list[str] = []
        self.unfit: ConfigError | None = None
        self.closed = 0
        self.records: list[AccessRecord] = []

    def known_capabilities(self) -> Mapping[str, ModelCapabilities]:
        return {
            name: published.with_settings(settings.defaults, settings.limits, settings.ai_mark)
            for name, published in self.published.items()
            for settings in (self.config.settings_of(name),)
        }

    async def capabilities(self, model: str) -> ModelCapabilities:
        return self.known_capabilities()[model]

    async def check_room(self, model: str, params: GenerationParams, context: CallerContext) -> None:
        self.checked.append((model, context))

    def submit(
        self, requests: Sequence[GenerationRequest], context: CallerContext, running: Mapping[str, str]
    ) -> list[AsyncGenerator[Event, None]]:
        return [self._generate(request, context) for request in requests]

    async def _generate(self, request: GenerationRequest, context: CallerContext) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        self.contexts.append(context)
        try:
            await asyncio.sleep(self.delay_s)
            if self.error is not None:
                raise self.error
            if context.progress or context.previews:
                yield Queued(0, 0.0)
                if self.late_error is not None:
                    raise self.late_error
                yield Progress(1, 2, 0.1, PREVIEW if context.previews else None)
            if request.seed in self.stopped_seeds:
                raise Cancelled("stopped by its owner")
            picture = np.zeros((request.height, request.width, 3), np.uint8)
            content = encode_image(picture, request.output)
            size = request.output.width, request.output.height
            timings = Timings(0.001, 0.002, 0.003, 0.004)
            yield GeneratedImage(content, request.output.format, *size, request.seed, timings)
        finally:
            self.closed += 1

    async def cancel(self, task: str, owner: str) -> int:
        return 1 if self.running.pop((owner, task), None) else 0

    async def interrupt(self, task: str, owner: str) -> int:
        self.cut.append((owner, task))
        return await self.cancel(task, owner)

    async def memory(self) -> list[MemoryUse]:
        return self.machines

    async def progress_of(self, task: str, owner: str, preview: bool = False) -> Queued | Progress | None:
        return self.running.get((owner, task))

    def count_response(self, record: AccessRecord) -> None:
        self.records.append(record)

    async def missing_models(self) -> list[str]:
        if self.unfit is not None:
            raise self.unfit
        return self.missing

    async def config_errors(self) -> list[str]:
        return self.mistakes


def fake_app(**config: Any) -> tuple[TestClient, FakeService]:
    """The whole HTTP application over a fake service; `config` changes parts of the ingress' config."""
    service = FakeService(IngressConfig.model_validate({**CONFIG.model_dump(exclude_unset=True), **config}))
    return TestClient(create_app(service, service.config), raise_server_exceptions=False), service
