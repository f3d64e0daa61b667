"""The one way from every API to the models: limits held, images of one request merged into one stream of events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from serve_app.api.keys import Caller
from serve_app.api.middleware.trace_requests import current_traceparent
from serve_app.api.rate_limits import RateLimiter
from serve_app.api.result_store import ResultStore
from serve_app.api.service import Service
from serve_app.config import AppConfig
from serve_app.errors import Cancelled, GenerationFailed, UnknownName
from serve_app.requests.events import Event, GeneratedImage, Progress, Queued
from serve_app.requests.request import CallerContext, GenerationRequest

log = logging.getLogger("darkroom.prompts")

Numbered = tuple[int, Event]
"""Which image of the request, and what happened to it."""


class Dispatcher:
    """Takes resolved requests for a caller."""

    def __init__(self, service: Service, limiter: RateLimiter, results: ResultStore) -> None:
        self.service = service
        self.results = results
        self._limiter = limiter

    @property
    def config(self) -> AppConfig:
        """The models, presets and limits."""
        return self.service.config

    def model_name(self, asked: str | None) -> str:
        """The configured model that a caller means; raises UnknownName."""
        config = self.config
        name = config.default_model if asked is None else config.aliases.get(asked, asked)
        if name not in config.models:
            raise UnknownName("model", name, f"must be one of {', '.join(config.models)}")
        return name

    async def draw(
        self, caller: Caller, requests: Sequence[GenerationRequest], context: CallerContext | None = None
    ) -> AsyncIterator[Numbered]:
        """Events of all images as they come. Closing the iterator cancels.

        One image's error ends them all; one that was stopped ends alone, and Cancelled is raised after the others.
        """
        asked = context or CallerContext()
        asked = CallerContext(
            asked.task, caller.name, caller.priority, asked.progress, asked.previews, current_traceparent()
        )
        self._limiter.admit(caller, requests[0].model, len(requests))
        if self.config.ingress.log_prompts:
            log.info(json.dumps(describe(caller, requests)))
        spent = 0.0
        events: asyncio.Queue[Numbered | asyncio.Task[None]] = asyncio.Queue()
        images = [asyncio.create_task(self._feed(index, one, asked, events)) for index, one in enumerate(requests)]
        for image in images:
            image.add_done_callback(events.put_nowait)
        left, stopped = len(images), None
        try:
            while left:
                event = await events.get()
                if isinstance(event, asyncio.Task):
                    left -= 1
                    try:
                        event.result()
                    except Cancelled as error:
                        stopped = error
                    continue
                if isinstance(event[1], GeneratedImage):
                    spent += event[1].timings.device
                yield event
            if stopped is not None:
                raise stopped
        finally:
            for image in images:
                image.cancel()
            await asyncio.gather(*images, return_exceptions=True)
            self._limiter.release(caller, len(requests), spent)

    async def _feed(
        self,
        index: int,
        request: GenerationRequest,
        context: CallerContext,
        events: "asyncio.Queue[Numbered | asyncio.Task[None]]",
    ) -> None:
        """Put one image's events into the queue; raises what its stream raises."""
        done = False
        async with aclosing(self.service.generate(request, context)) as stream:  # pyright: ignore[reportArgumentType]
            async for event in stream:
                done = done or isinstance(event, GeneratedImage)
                await events.put((index, event))
        if not done:
            raise GenerationFailed("the model ended its answer without an image")

    async def images(
        self, caller: Caller, requests: Sequence[GenerationRequest], context: CallerContext | None = None
    ) -> list[GeneratedImage]:
        """All images, in the requests' order."""
        found = await self.finished(caller, requests, context)
        if len(found) < len(requests):
            raise Cancelled("stopped by its owner")
        return list(found.values())

    async def finished(
        self, caller: Caller, requests: Sequence[GenerationRequest], context: CallerContext | None = None
    ) -> dict[int, GeneratedImage]:
        """The images by their place in `requests`, without those that were stopped; raises Cancelled if all were."""
        found: dict[int, GeneratedImage] = {}
        try:
            async with aclosing(self.draw(caller, requests, context)) as events:  # pyright: ignore[reportArgumentType]
                async for index, event in events:
                    if isinstance(event, GeneratedImage):
                        found[index] = event
        except Cancelled:
            if not found:
                raise
        return dict(sorted(found.items()))

    async def cancel(self, caller: Caller, task: str) -> int:
        """Stop the caller's task; how many images that were."""
        return await self.service.cancel(task, caller.name)

    async def interrupt(self, caller: Caller, task: str) -> int:
        """Let the caller's task end as it is; how many images that were."""
        return await self.service.interrupt(task, caller.name)

    async def progress_of(self, caller: Caller, task: str) -> Queued | Progress | None:
        """How far the caller's task is."""
        return await self.service.progress_of(task, caller.name)


def describe(caller: Caller, requests: Sequence[GenerationRequest]) -> dict[str, object]:
    """A request for the log, with its prompts."""
    first = requests[0]
    return {
        "key": caller.name,
        "model": first.model,
        "prompt": first.prompt,
        "negative_prompt": first.negative_prompt,
        "seeds": [request.seed for request in requests],
    }
