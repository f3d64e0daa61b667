"""The one way from every API to the models: requests resolved, limits held, images of one request merged."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from fastapi import Request
from opentelemetry.propagate import inject

from serve_app.api.infotext import write_infotext
from serve_app.api.key_file import KeyFile
from serve_app.api.keys import Caller
from serve_app.api.middleware.auth import caller_of
from serve_app.api.result_store import ResultStore
from serve_app.api.service import Events, Service
from serve_app.api.stream_buffer import NumberedEvent, StreamBuffer
from serve_app.api.usage import Admission, Usage
from serve_app.api.worker_pool import WorkerPool
from serve_app.config import IngressConfig
from serve_app.errors import Cancelled, DarkroomError, GenerationFailed, UnknownName
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import GeneratedImage
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.resolve import resolve

log = logging.getLogger("darkroom.prompts")


class Dispatcher:
    """Resolves requests and runs them for a caller. `keys` is None where keys are off."""

    def __init__(
        self, service: Service, config: IngressConfig, usage: Usage, results: ResultStore, keys: KeyFile | None
    ) -> None:
        self.service = service
        self.config = config
        self.results = results
        self.keys = keys
        self.workers = WorkerPool()
        self._usage = usage

    async def admission(self, request: Request) -> AsyncIterator[Admission]:
        """FastAPI's dependency of routes that cost something: an empty admission, ended once the response is sent."""
        admission = Admission(caller_of(request.scope), self._usage, self.model_name, self._max_images)
        admission.read_headers(request.headers)
        try:
            yield admission
        finally:
            await admission.end()

    def model_name(self, given: str | None) -> str:
        """The name of the served model that `given` means: its name, an alias, or None for the default model.

        Raises:
            UnknownName: no such model is served.
        """
        models = self.service.models
        name = self.config.default_model or models[0] if given is None else self.config.aliases.get(given, given)
        if name not in models:
            raise UnknownName("model", name, f"must be one of {', '.join(models)}")
        return name

    def _max_images(self, model: str) -> int:
        return self.config.settings_of(model).limits.max_images

    async def capabilities(self, given: str | None) -> ModelCapabilities:
        """What the model that `given` means can do."""
        return await self.service.capabilities(self.model_name(given))

    async def resolve(self, admission: Admission, params: GenerationParams) -> list[GenerationRequest]:
        """The requests for all images, with the infotext that their files carry. Images that were sent are dropped.

        Raises:
            InvalidRequest: names the field, its value and what is allowed.
        """
        name = self.model_name(params.model)
        admission.read_params(params)
        capabilities = await self.service.capabilities(name)
        await self.service.check_room(name, params, with_admission(CallerContext(), admission))
        if params.image is None and params.mask is None:
            return decide(params, name, capabilities)
        return await self.workers.run(admission.caller.name, decide, params, name, capabilities)

    async def _submit(
        self, admission: Admission, requests: Sequence[GenerationRequest], context: CallerContext
    ) -> Sequence[Events]:
        try:
            return self.service.submit(requests, with_admission(context, admission))
        except DarkroomError:
            await admission.end()
            raise

    async def generate(
        self, admission: Admission, requests: Sequence[GenerationRequest], context: CallerContext | None = None
    ) -> AsyncGenerator[NumberedEvent, None]:
        """The events of all images as they come. Closing the iterator cancels. The admission ends with the images.

        One image's error ends them all. An image that its owner stops ends alone: Cancelled is raised after the others.
        """
        caller = admission.caller
        await admission.admit(requests[0].model, len(requests))
        if self.config.logs.prompts:
            log.info(json.dumps(prompt_line(caller, requests)))
        streams = await self._submit(admission, requests, context or CallerContext())
        events = StreamBuffer(self.config.max_preview_bytes)
        stopped: Cancelled | None = None
        images = [asyncio.create_task(feed(index, stream, events)) for index, stream in enumerate(streams)]
        for image in images:
            image.add_done_callback(events.put)
        try:
            running = len(images)
            while running:
                event = await events.take()
                if isinstance(event, asyncio.Task):
                    running -= 1
                    try:
                        event.result()
                    except Cancelled as error:
                        stopped = error
                    continue
                yield event
        finally:
            for image in images:
                image.cancel()
            await asyncio.gather(*images, return_exceptions=True)
            await asyncio.gather(*(stream.aclose() for stream in streams), return_exceptions=True)
            await admission.end()
        if stopped is not None:
            raise stopped


async def feed(index: int, stream: Events, events: StreamBuffer) -> None:
    """Put one image's events into the buffer; raises what its stream raises."""
    done = False
    async for event in stream:
        done = done or isinstance(event, GeneratedImage)
        events.put((index, event))
    if not done:
        raise GenerationFailed("the model ended its response without an image")


def decide(params: GenerationParams, name: str, capabilities: ModelCapabilities) -> list[GenerationRequest]:
    """The requests for all images. Decodes the images that were sent, and drops their files."""
    requests = resolve(params, name, capabilities)
    params.drop_files()
    return [replace(one, output=replace(one.output, infotext=write_infotext(one))) for one in requests]


async def collect_images(events: AsyncGenerator[NumberedEvent, None]) -> dict[int, GeneratedImage]:
    """The images by their index, without those that their owner stopped. Raises Cancelled if all were stopped."""
    found: dict[int, GeneratedImage] = {}
    try:
        async with aclosing(events):
            async for index, event in events:
                if isinstance(event, GeneratedImage):
                    found[index] = event
    except Cancelled:
        if not found:
            raise
    return dict(sorted(found.items()))


async def collect_all_images(events: AsyncGenerator[NumberedEvent, None], expected: int) -> list[GeneratedImage]:
    """All `expected` images, in order. Raises Cancelled if any was stopped."""
    found = await collect_images(events)
    if len(found) < expected:
        raise Cancelled("the request was stopped by its owner")
    return list(found.values())


def with_admission(context: CallerContext, admission: Admission) -> CallerContext:
    """The context with what follows from who asks and how urgent it is, and with the current trace."""
    caller = admission.caller
    return replace(
        context,
        owner=caller.name,
        is_batch="batch" in (caller.priority, admission.priority),
        deadline_s=admission.deadline_s,
        counts_device_time=caller.daily_device_seconds is not None,
        traceparent=current_traceparent(),
    )


def prompt_line(caller: Caller, requests: Sequence[GenerationRequest]) -> dict[str, object]:
    """A request for the log, with its prompts."""
    first = requests[0]
    return {
        "key": caller.name,
        "model": first.model,
        "prompt": first.prompt,
        "negative_prompt": first.sampling.negative_prompt,
        "seeds": [request.seed for request in requests],
    }


def current_traceparent() -> str:
    """The W3C `traceparent` of the current span; empty where the request is not traced."""
    carrier: dict[str, str] = {}
    inject(carrier)
    header = carrier.get("traceparent", "")
    return header if header.endswith("-01") else ""
