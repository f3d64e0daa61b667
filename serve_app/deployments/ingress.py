"""The front of the graph: HTTP in, one hop to the model's replicas, events back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.api.app import create_app
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.config import AppConfig
from serve_app.deployments.logs import write_plain_lines
from serve_app.deployments.metrics import IngressMetrics
from serve_app.deployments.queues import ModelQueue
from serve_app.deployments.spans import start_tracing
from serve_app.errors import Cancelled, DarkroomError, GenerationFailed, NotReady, Overloaded
from serve_app.requests.events import Event, GeneratedImage, MemoryUse, Progress, Queued, ReplicaEvent, ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest

READY_SECONDS = 1.0
ATTEMPTS = 3


@serve.ingress()
class Ingress:
    """A `Service` over deployment handles, one per model, and the safety checker's."""

    def __init__(
        self,
        config: AppConfig,
        replicas: Mapping[str, DeploymentHandle],
        safety: DeploymentHandle | None,
        secret: str,
    ) -> None:
        write_plain_lines()
        self._metrics = IngressMetrics()
        self.config = config
        self._secret = secret
        self._provider = start_tracing(config.tracing)
        self._safety = safety
        self._replicas = replicas
        self._streams: dict[str, Any] = {name: handle.options(stream=True) for name, handle in replicas.items()}
        self._lines = {name: ModelQueue() for name in replicas}
        self._warm: set[str] = set()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self, self._secret, self._provider, server_sends_request_id=True)

    async def generate(self, request: GenerationRequest, context: CallerContext) -> AsyncIterator[Event]:
        """Events of one request. Where a replica dies another goes on from its last checkpoint.

        The same request gives the same image wherever it runs, so the caller notices nothing but the delay.
        """
        saved: ResumePoint | None = None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with aclosing(self._attempt(request, context, saved)) as events:  # pyright: ignore[reportArgumentType]
                    async for event in events:
                        if isinstance(event, GeneratedImage):
                            yield await self._review(request, event)
                            return
                        if isinstance(event, ResumePoint):
                            saved = event
                        else:
                            yield event
            except BackPressureError as error:
                raise Overloaded(self.config.models[request.model].replicas.retry_after_s) from error
            except DeploymentUnavailableError as error:
                raise NotReady(f"model {request.model} has no replica that works") from error
            except RayActorError as error:
                if attempt == ATTEMPTS:
                    raise GenerationFailed(f"{ATTEMPTS} replicas died future this image") from error
            except RayTaskError as error:
                raise _cause(error) from None

    async def _attempt(
        self, request: GenerationRequest, context: CallerContext, saved: ResumePoint | None
    ) -> AsyncIterator[ReplicaEvent]:
        """Events of one replica, after those of waiting for it. Closing the iterator stops that replica's work."""
        response = self._streams[request.model].generate.remote(request, context, saved)
        finished = False
        try:
            async with aclosing(self._lines[request.model].wait(response, context)) as events:  # pyright: ignore[reportArgumentType]
                async for event in events:
                    finished = isinstance(event, GeneratedImage)
                    yield event
        except (asyncio.CancelledError, GeneratorExit, Cancelled):
            if not finished:
                response.cancel()
            raise

    async def _review(self, request: GenerationRequest, image: GeneratedImage) -> GeneratedImage:
        """Ask the safety checker where the model's policy wants it."""
        policy = self.config.models[request.model].safety
        if self._safety is None or policy == "off":
            return image
        return await self._safety.review.remote(image, request.output, policy)

    async def cancel(self, task: str, owner: str) -> int:
        """See `Service`."""
        return await self._leave_and_ask("cancel", task, owner)

    async def interrupt(self, task: str, owner: str) -> int:
        """See `Service`."""
        return await self._leave_and_ask("interrupt", task, owner)

    async def _leave_and_ask(self, method: str, task: str, owner: str) -> int:
        """What waits leaves its line, what is drawn is told; how many images that were."""
        waiting = sum(line.leave(task, owner) for line in self._lines.values())
        return waiting + sum(await self._ask_all(method, task, owner))

    async def progress_of(self, task: str, owner: str) -> Queued | Progress | None:
        """See `Service`. Of several images the least advanced of those being drawn counts."""
        answers = await self._ask_all("progress_of", task, owner)
        drawn = [answer for answer in answers if isinstance(answer, Progress)]
        waiting = [line.standing(place) for line in self._lines.values() for place in line.find(task, owner)]
        queued = [*waiting, *(answer for answer in answers if isinstance(answer, Queued))]
        least = min(drawn, key=lambda progress: progress.step / progress.steps, default=None)
        return least or next(iter(queued), None)

    async def memory(self) -> list[MemoryUse]:
        """See `Service`."""
        return await self._ask_all("memory")

    async def _ask_all(self, method: str, *args: str) -> list[Any]:
        """Every replica's answer."""
        asked = [handle.broadcast(method, *args).results_async() for handle in self._replicas.values()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [one for answer in answers if not isinstance(answer, BaseException) for one in answer]

    def count_response(self, record: AccessRecord) -> None:
        """See `Service`."""
        self._metrics.count_response(record)

    async def warming_up(self) -> list[str]:
        """The models that have to be up and have not answered yet; one that has stays ready."""
        waiting = [
            name
            for name, model in self.config.models.items()
            if name not in self._warm and model.replicas.autoscaling.min_replicas > 0
        ]
        answers = await asyncio.gather(*(self._answers(name) for name in waiting))
        self._warm.update(name for name, ready in zip(waiting, answers, strict=True) if ready)
        return [name for name in waiting if name not in self._warm]

    async def _answers(self, name: str) -> bool:
        try:
            return await asyncio.wait_for(self._replicas[name].ready.remote(), READY_SECONDS)
        except (TimeoutError, BackPressureError, DeploymentUnavailableError, RayActorError):
            return False


def _cause(error: RayTaskError) -> DarkroomError:
    """The error as the replica raised it; its text there would be the remote traceback."""
    cause = error.cause
    return cause if isinstance(cause, DarkroomError) else GenerationFailed(f"{type(cause).__name__}: {cause}")
