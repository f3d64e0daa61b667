"""One model on its share of a GPU: an engine behind a Serve deployment."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.config import ModelConfig, TracingConfig, UsageConfig
from serve_app.config.names import deployment_of
from serve_app.deployments.live_config import LiveConfig
from serve_app.deployments.load_engine import load_engine
from serve_app.deployments.logs import write_plain_lines
from serve_app.deployments.metrics import ReplicaMetrics
from serve_app.deployments.spans import ImageSpans, start_tracing
from serve_app.deployments.tasks import Tasks
from serve_app.deployments.usage_actor import connect_usage
from serve_app.deployments.usage_reporter import UsageReporter
from serve_app.errors import Cancelled, ConfigError, NotReady
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import MemoryUse, Progress, Queued, ReplicaEvent, ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest

if TYPE_CHECKING:
    from serve_app.engine.denoise_loop import EngineCounters
    from serve_app.engine.engine import Engine
    from serve_app.engine.image_future import ImageFuture


EngineEvent = Progress | ResumePoint


class EventBuffer:
    """Coalesced: a slow reader gets the latest event of each kind, but every preview. Make it on the reader's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: list[EngineEvent] = []
        self._news = asyncio.Event()
        self._closed = False

    def put(self, event: EngineEvent) -> None:
        """Add an event, from any thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._add, event)

    def close(self, _: object = None) -> None:
        """End the reading, once what is here has been read."""
        self._closed = True
        self._news.set()

    async def read(self) -> AsyncIterator[EngineEvent]:
        """The events as they come, until the buffer is closed."""
        while self._events or not self._closed:
            if self._events:
                yield self._events.pop(0)
            else:
                self._news.clear()
                await self._news.wait()

    def _add(self, event: EngineEvent) -> None:
        self._events = [*(one for one in self._events if is_kept(one, event)), event]
        self._news.set()


class ModelReplica:
    """Turns requests into event streams. Serve routes nothing here before the first config's model is loaded."""

    def __init__(
        self, name: str = "model", tracing: TracingConfig | None = None, usage: UsageConfig | None = None
    ) -> None:
        write_plain_lines()
        self._config = LiveConfig(deployment_of(name), ModelConfig)
        self._loaded: Engine | None = None
        self._wanted: ModelConfig | None = None
        self._loading = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()
        self._tasks = Tasks()
        self._spans = ImageSpans(start_tracing(tracing))
        self._metrics = ReplicaMetrics(name)
        self._usage = UsageReporter(connect_usage(usage), self._take_device_time) if usage is not None else None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Load the first config's model before this returns. Load a later one's in the background, then change over.

        Raises:
            ConfigError: the first config has mistakes, or its model cannot be loaded.
        """
        try:
            config = self._wanted = self._config.read(user_config)
            if self._loaded is None:
                self._use(await asyncio.to_thread(load_engine, config), config)
        except ConfigError as error:
            self._config.refuse(error)
            return
        if self._usage is not None:
            self._usage.start()
        if config == self._config.current:
            self._config.accept(config)
        else:
            change = asyncio.create_task(self._change_to(config))
            self._changes.add(change)
            change.add_done_callback(self._end_change)

    async def _change_to(self, config: ModelConfig) -> None:
        """Load the model beside the one that is in use, which ends its images first."""
        async with self._loading:
            if config is not self._wanted:
                return
            engine, unused = await asyncio.to_thread(load_engine, config), self._engine
            if config is self._wanted:
                self._use(engine, config)
            else:
                unused = engine
            await asyncio.to_thread(unused.close)
            if self._usage is not None:
                self._usage.add(unused.device_time.take())

    def _end_change(self, change: "asyncio.Task[None]") -> None:
        self._changes.discard(change)
        error = None if change.cancelled() else change.exception()
        if error is not None:
            known = isinstance(error, ConfigError)
            self._config.refuse(error if known else ConfigError(f"{type(error).__name__}: {error}"))

    def _use(self, engine: "Engine", config: ModelConfig) -> None:
        self._loaded = engine
        self._metrics.watch(engine)
        self._config.accept(config)

    def _take_device_time(self) -> Mapping[str, float]:
        return self._engine.device_time.take()

    @property
    def _engine(self) -> "Engine":
        if self._loaded is None:
            raise NotReady("user_config must be given: no model is loaded")
        return self._loaded

    async def generate(
        self, request: GenerationRequest, context: CallerContext | None = None, resume_from: ResumePoint | None = None
    ) -> AsyncIterator[ReplicaEvent]:
        """Queued, progress if asked, resume points, the image last. Closing the stream frees the request's rows.

        With `resume_from`, an image that another replica had begun goes on.
        """
        context = context or CallerContext()
        buffer = EventBuffer()
        queued = self._engine.queue()
        future = await self._submit(request, context, buffer, resume_from)
        image = asyncio.wrap_future(future)
        image.add_done_callback(buffer.close)
        try:
            with self._tasks.running(context, future) if context.task else nullcontext():
                yield queued
                async for event in buffer.read():
                    if context.task and isinstance(event, Progress):
                        self._tasks.note(context, future, event)
                    yield event
                if image.cancelled():
                    raise Cancelled("stopped by its owner")
                finished = await image
                self._metrics.note(finished)
                if context.traceparent:
                    self._spans.record(request, context, finished)
                yield finished
        finally:
            future.cancel()

    async def _submit(
        self, request: GenerationRequest, context: CallerContext, buffer: EventBuffer, resume_from: ResumePoint | None
    ) -> "ImageFuture":
        """Submit to the engine in use, also where it changes meanwhile."""
        from serve_app.engine.passes import Callbacks  # it imports torch: see `load_engine`

        watched = context.progress or context.previews > 0
        callbacks = Callbacks(on_progress=buffer.put if watched else None, on_resume_point=buffer.put)
        while True:
            engine = self._engine
            try:
                return await off_the_loop(partial(engine.submit, request, context, callbacks, resume_from))
            except NotReady:
                if engine is self._engine:
                    raise

    async def cancel(self, task: str, owner: str) -> int:
        """Stop the images of `task` if they are `owner`'s. Returns how many that were."""
        return self._tasks.cancel(task, owner)

    async def interrupt(self, task: str, owner: str) -> int:
        """Let the images of `task` end with their next step if they are `owner`'s. Returns how many that are."""
        return self._tasks.interrupt(task, owner)

    async def progress_of(self, task: str, owner: str, preview: bool = False) -> Queued | Progress | None:
        """The latest progress of `task`; None where it does not run here or is not theirs.

        With `preview`, the next step renders one, which a later call gets.
        """
        return self._tasks.progress_of(task, owner, preview)

    async def memory(self) -> MemoryUse:
        """What this replica holds."""
        return self._engine.memory()

    async def capabilities(self) -> ModelCapabilities:
        """What the loaded model can do."""
        return self._engine.capabilities

    async def refusal(self) -> str:
        """Why the latest config is refused; empty where it is in force, or still being loaded."""
        return self._config.refusal

    async def check_health(self) -> None:
        """Raise where no model is loaded, or where the engine has died or hangs. Serve then replaces the replica."""
        await asyncio.to_thread(self._engine.check_health)

    def counters(self) -> "EngineCounters":
        """What the engine has done so far, and the rows being denoised now."""
        return self._engine.counters

    def __del__(self) -> None:
        if hasattr(self, "_metrics"):
            self._metrics.close()
        if getattr(self, "_loaded", None) is not None:
            self._engine.close()
            if self._usage is not None:
                self._usage.finish()


async def off_the_loop(submit: "Callable[[], ImageFuture]") -> "ImageFuture":
    """Submit in a thread, as a sampler may have to be compiled. A caller that leaves meanwhile cancels."""
    submitted = asyncio.get_running_loop().run_in_executor(None, submit)
    try:
        return await asyncio.shield(submitted)
    except asyncio.CancelledError:
        submitted.add_done_callback(_cancel_submitted)
        raise


def _cancel_submitted(submitted: "asyncio.Future[ImageFuture]") -> None:
    if submitted.exception() is None:
        submitted.result().cancel()


def is_kept(earlier: EngineEvent, later: EngineEvent) -> bool:
    """Whether an event that is not read yet is still worth reading."""
    shown = isinstance(earlier, Progress) and earlier.preview is not None
    return shown or type(earlier) is not type(later)
