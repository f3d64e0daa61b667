"""Deployment handles that draw nothing, and the real ingress with its HTTP application over them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from starlette.testclient import TestClient

from serve_app.config import UsageConfig
from serve_app.deployments import draining_nodes, peers, replica_fleet, replica_watch, serve_state
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.readiness import Readiness
from serve_app.deployments.replica_sets import ReplicaAddress, ReplicaSets
from serve_app.deployments.shared_usage import SharedUsage
from serve_app.errors import ContentRefused
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import GeneratedImage, Progress, Queued, ReplicaEvent, ReplicaLoad, Timings
from serve_app.requests.image_files import OutputSpec, encode_image
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.step_curve import StepCurve

SIZE = 64
PREVIEW = encode_image(np.full((8, 8, 3), 90, np.uint8), OutputSpec(8, 8))
IMAGE = encode_image(np.full((SIZE, SIZE, 3), 200, np.uint8), OutputSpec(SIZE, SIZE))
BLURRED = encode_image(np.full((SIZE, SIZE, 3), 100, np.uint8), OutputSpec(SIZE, SIZE))

Answer = Callable[[], Awaitable[bool]]


class FakeReplicas:
    """A model's handle, with one replica. Previews are rendered as asked; with `stubborn`, always.

    With `error`, no image comes. A handle that calls by gRPC raises it as it is.
    """

    def __init__(self, stubborn: bool = False, error: Exception | None = None, by_grpc: bool = False) -> None:
        self.stubborn = stubborn
        self.by_grpc = by_grpc
        self.error = error
        self.contexts: list[CallerContext] = []
        self.asked: list[tuple[Any, ...]] = []
        self.generate = self.capabilities = self

    def options(self, **_: Any) -> "FakeReplicas":
        return self

    def remote(self, *args: Any, **_: Any) -> Any:
        return FakeStream(self, *args) if args else self._tell_capabilities()

    async def _tell_capabilities(self) -> ModelCapabilities:
        return ModelCapabilities(native_size=SIZE)

    def broadcast(self, *_: Any) -> "FakeReplicas":
        return self

    async def results_async(self, **_: Any) -> list[Any]:
        return [ModelCapabilities(native_size=SIZE)]

    async def find(self, _actor_name: str) -> "FakeReplicas":
        return self

    async def heartbeat(self, _ingress: str, _queued_s: float) -> ReplicaLoad:
        return ReplicaLoad(curve=StepCurve(size=(8, 8), seconds={1: 0.001, 2: 0.0015}))

    async def progress_of(self, *args: Any) -> Progress:
        self.asked.append(args)
        return Progress(1, 2, 0.1, PREVIEW if args[-1] or self.stubborn else None)

    async def call(self, method: str, *_args: Any) -> Any:
        return "" if method == "refusal" else []

    def kill(self) -> None:
        pass


class FakeStream:
    """What a streaming call returns."""

    def __init__(
        self, replicas: FakeReplicas, request: GenerationRequest, context: CallerContext, _resume_from: object
    ) -> None:
        replicas.contexts.append(context)
        preview = PREVIEW if context.previews or replicas.stubborn else None
        error = replicas.error
        if error is not None and not replicas.by_grpc:
            error = RayTaskError("generate", "a traceback", error)
        self._events = self._run(request, preview, error)

    async def _run(
        self, request: GenerationRequest, preview: bytes | None, error: Exception | None
    ) -> AsyncIterator[ReplicaEvent]:
        yield Queued(0, 0.0)
        if error is not None:
            raise error
        yield Progress(1, 2, 0.1, preview)
        yield GeneratedImage(IMAGE, "png", SIZE, SIZE, request.seed, Timings())

    def __aiter__(self) -> AsyncIterator[ReplicaEvent]:
        return self._events

    async def __anext__(self) -> ReplicaEvent:
        return await anext(self._events)

    def cancel(self) -> None:
        pass


class FakeChecker:
    """The safety checker's handle. `answers` decide what becomes of each call; the last one stays."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.reviewed: list[bytes] = []
        self.cancelled = 0
        self.review = self

    def remote(self, image: GeneratedImage, _output: OutputSpec, policy: str) -> "FakeReview":
        self.reviewed.append(image.content)
        return FakeReview(self, self.answers.pop(0) if len(self.answers) > 1 else self.answers[0], image, policy)


class FakeReview:
    """What a call of the checker returns."""

    def __init__(self, checker: FakeChecker, answer: Answer, image: GeneratedImage, policy: str) -> None:
        self._checker = checker
        self._answer = answer
        self._image = image
        self._policy = policy

    def __await__(self) -> Any:
        return self._decide().__await__()

    async def _decide(self) -> GeneratedImage:
        flagged = await self._answer()
        if flagged and self._policy == "refuse":
            raise RayTaskError("review", "a traceback", ContentRefused("flagged"))
        content = BLURRED if flagged and self._policy == "blur" else self._image.content
        return replace(self._image, content=content, flagged=flagged)

    def cancel(self) -> None:
        self._checker.cancelled += 1


async def flag() -> bool:
    """The image is flagged."""
    return True


async def die() -> bool:
    """The checker's replica dies."""
    raise ActorDiedError


async def fail() -> bool:
    """The checker raises. Its text holds what a caller sent."""
    raise RayTaskError("review", "a traceback", ValueError("a secret prompt"))


async def fail_by_grpc() -> bool:
    """As `fail`, where the handle calls by gRPC."""
    raise ValueError("a secret prompt")


async def hang() -> bool:
    """There is no answer."""
    await asyncio.sleep(600)
    return False


@contextmanager
def ingress_client(
    monkeypatch: pytest.MonkeyPatch, replicas: FakeReplicas, checker: FakeChecker, **config: Any
) -> Iterator[TestClient]:
    """The HTTP application of an ingress with one model called `m`, which has one replica."""
    monkeypatch.setattr(serve_state, "count_replicas", lambda: 1)
    monkeypatch.setattr(peers, "find_peers", list)
    monkeypatch.setattr(draining_nodes, "find_draining_nodes", frozenset)
    monkeypatch.setattr(Readiness, "announce", lambda _: None)
    monkeypatch.setattr(SharedUsage, "start", AsyncMock())  # it stays away: this replica counts by itself
    monkeypatch.setattr(replica_watch, "ReplicaActor", replicas)
    sets = ReplicaSets()
    monkeypatch.setattr(replica_fleet, "REPLICA_SETS", sets)
    sets.tell("model-m", [ReplicaAddress("r1", "actor of r1")])
    undecorated: Any = Ingress.__bases__[0]  # Serve's own base class needs a cluster
    ingress = undecorated({"m": replicas}, checker, UsageConfig(), None)
    with TestClient(ingress.__serve_build_asgi_app__(), raise_server_exceptions=False) as client:
        assert client.portal is not None
        client.portal.call(ingress.reconfigure, config)
        yield client
