"""The one way from every API to the models: requests resolved, limits held, images of one request merged."""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Header, Request
from opentelemetry.propagate import inject

from serve_app.api.image_events import merge_events
from serve_app.api.infotext import write_infotext
from serve_app.api.key_file import KeyFile
from serve_app.api.keyed_requests import KeyedRequests
from serve_app.api.keys import Caller
from serve_app.api.middleware.auth import caller_of
from serve_app.api.result_store import ResultStore
from serve_app.api.service import Service
from serve_app.api.stream_buffer import NumberedEvent, StreamBuffer
from serve_app.api.usage import Admission, Usage
from serve_app.api.worker_pool import WorkerPool
from serve_app.config import IngressConfig
from serve_app.errors import Overloaded, UnknownName
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.idempotency import (
    IDEMPOTENCY_HEADER,
    RequestKey,
    fingerprint_of,
    image_keys,
    with_seeds,
)
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.resolve import resolve

log = logging.getLogger("darkroom.prompts")

T = TypeVar("T")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=IDEMPOTENCY_HEADER,
        description="Names the request: sent again, it draws nothing anew. 1 to 255 visible ASCII characters.",
    ),
]


class Dispatcher:
    """Resolves requests and runs them for a caller. `keys` is None where keys are off."""

    def __init__(
        self,
        service: Service,
        config: IngressConfig,
        usage: Usage,
        results: ResultStore,
        keys: KeyFile | None,
        keyed: KeyedRequests,
    ) -> None:
        self.service = service
        self.config = config
        self.results = results
        self.keys = keys
        self.workers = WorkerPool()
        self._usage = usage
        self._keyed = keyed

    async def drawing(self, request: Request, idempotency_key: IdempotencyKey = None) -> AsyncIterator[Admission]:
        """FastAPI's dependency of routes that draw: as `admission`, which reads the key. It is declared for OpenAPI."""
        async with aclosing(self.admission(request)) as admissions:
            async for admission in admissions:
                yield admission

    async def admission(self, request: Request) -> AsyncGenerator[Admission, None]:
        """FastAPI's dependency of routes that cost something: an empty admission, ended once the response is sent."""
        admission = Admission(caller_of(request.scope), self._usage, self.model_name, self._max_images, self._keyed)
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
            InvalidIdempotencyKey: another request has the key.
            Overloaded: they would not be done by their deadline.
        """
        name, key = self.model_name(params.model), admission.key
        admission.read_params(params)
        capabilities = await self.service.capabilities(name)
        has_files = params.image is not None or params.mask is not None
        run = partial(self.workers.run, admission.caller.name) if has_files else run_inline
        if key is not None:
            admission.fingerprint = await run(fingerprint_of, params, name)
            self._keyed.check(key, admission.fingerprint)
        await self._check_room(admission, params, name)
        return await run(decide, params, name, capabilities, key)

    async def _check_room(self, admission: Admission, params: GenerationParams, model: str) -> None:
        """Refuse what could not be done in time, but for a request that joins another one."""
        key = admission.key
        if key is not None and self._keyed.is_known_here(key):
            return
        try:
            await self.service.check_room(model, params, with_admission(CallerContext(), admission))
        except Overloaded:
            if key is None or not await self._keyed.is_known(key, model, params.num_images):
                raise

    def generate(
        self, admission: Admission, requests: Sequence[GenerationRequest], context: CallerContext | None = None
    ) -> AsyncGenerator[NumberedEvent, None]:
        """The events of all images as they come. Closing the iterator cancels, unless others have joined the request.

        One image's error ends them all. An image that its owner stops ends alone: Cancelled is raised after the others.
        """
        context = with_admission(context or CallerContext(), admission)
        draw = partial(self._draw, requests=requests, context=context)
        if admission.key is None:
            return draw(admission)
        return self._keyed.read(admission.key, admission, draw, StreamBuffer(self.config.max_preview_bytes))

    async def _draw(
        self, admission: Admission, requests: Sequence[GenerationRequest], context: CallerContext
    ) -> AsyncGenerator[NumberedEvent, None]:
        """The admission ends with the images."""
        model, digest = requests[0].model, context.idempotency_key
        await admission.admit(model, len(requests))
        if self.config.logs.prompts:
            log.info(json.dumps(prompt_line(admission.caller, requests)))
        try:
            keys = image_keys(digest, len(requests)) if digest else []
            running = await self._keyed.peers.find_running(model, keys) if keys else {}
            streams = self.service.submit(requests, context, running)
            async with aclosing(merge_events(streams, self.config.max_preview_bytes)) as events:
                async for event in events:
                    yield event
        finally:
            await admission.end()


async def run_inline(function: Callable[..., T], *args: object) -> T:
    """What is done at once takes the place of what is done in a thread."""
    return function(*args)


def decide(
    params: GenerationParams, name: str, capabilities: ModelCapabilities, key: RequestKey | None
) -> list[GenerationRequest]:
    """The requests for all images. Decodes the images that were sent, and drops their files."""
    requests = resolve(params if key is None else with_seeds(params, key), name, capabilities)
    params.drop_files()
    return [replace(one, output=replace(one.output, infotext=write_infotext(one))) for one in requests]


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
        idempotency_key=admission.key.digest if admission.key is not None else "",
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
