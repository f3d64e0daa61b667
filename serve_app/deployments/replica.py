"""One model on its share of a GPU: an engine behind a Serve deployment."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from serve_app.config import ModelConfig, TracingConfig, UsageConfig
from serve_app.config.names import deployment_of
from serve_app.deployments import serve_state
from serve_app.deployments.live_config import LiveConfig
from serve_app.deployments.load_engine import load_engine
from serve_app.deployments.logs import write_plain_lines
from serve_app.deployments.metrics import ReplicaMetrics
from serve_app.deployments.running_images import RunningImages
from serve_app.deployments.spans import ImageSpans, start_tracing
from serve_app.deployments.stream_leases import Stream, StreamLeases, watch_leases
from serve_app.deployments.submit import submit
from serve_app.deployments.tasks import Tasks
from serve_app.deployments.usage_actor import connect_usage
from serve_app.deployments.usage_reporter import UsageReporter
from serve_app.errors import ConfigError, NotReady, ReplicaFull
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import MemoryUse, Progress, Queued, ReplicaEvent, ReplicaLoad, ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.work import batch_share, work_of

if TYPE_CHECKING:
    from serve_app.engine.engine import Engine
    from serve_app.engine.engine_counters import EngineCounters


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
        self._images = RunningImages()
        self._leases = StreamLeases(unread_share=self._images.unread_share)
        self._orphan_watcher: asyncio.Task[None] | None = None
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
        self._orphan_watcher = self._orphan_watcher or asyncio.create_task(
            watch_leases(self._leases, self._metrics.note_orphans)
        )
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
        self,
        request: GenerationRequest,
        context: CallerContext | None = None,
        resume_from: ResumePoint | None = None,
        *,
        ingress: str = "",
        resumed: bool = False,
        suspect: bool = False,
        alone: bool = False,
        target: str | None = None,
    ) -> AsyncIterator[ReplicaEvent]:
        """Queued at once, progress if asked, resume points, the image last. Closing the stream frees its rows.

        Where the image runs already, by its idempotency key, this stream gets its events, too.

        Args:
            request: what to draw.
            context: who asks, and what they want to be told.
            resume_from: an image that another replica had begun goes on from here.
            ingress: who has to send heartbeats, or the stream ends; empty where nobody has to.
            resumed: a replica had begun it, so that it needs no room.
            suspect: nothing else may begin here until the first resume point.
            alone: nothing else may run here until then.
            target: the replica that is meant, by its unique id.

        Raises:
            ReplicaFull: there is no room now, or another replica is meant.
            Draining, DeviceLost: this replica draws nothing more.
        """
        if target is not None and target != serve_state.find_unique_id():
            raise ReplicaFull("the replica that was meant has gone")
        context = context or CallerContext()
        stream = Stream(ingress, self._share_of(request), resumed, suspect, alone)
        with self._leases.hold(stream, joins=self._images.has(context.idempotency_key, request)):
            yield Queued(0, 0.0)
            async with aclosing(self._generate(request, context, resume_from, stream)) as events:
                async for event in events:
                    self._leases.note(stream, event)
                    yield event

    async def _generate(
        self,
        request: GenerationRequest,
        context: CallerContext,
        resume_from: ResumePoint | None,
        stream: Stream,
    ) -> AsyncGenerator[ReplicaEvent, None]:
        begin = partial(submit, lambda: self._engine, request, context, resume_from)
        image = self._images.open(context.idempotency_key, request, begin, stream.share)
        with image.reading(context.progress or context.previews > 0) as buffer:
            stream.end = partial(image.end_reading, buffer)
            future = await image.submitted()
            with self._tasks.running(context, future) if context.task else nullcontext():
                async for event in buffer.read():
                    if context.task and isinstance(event, Progress):
                        self._tasks.note(context, future, event)
                    yield event
                finished = image.result()
                if not image.is_counted:
                    image.is_counted = True
                    self._metrics.note(finished)
                    if context.traceparent:
                        self._spans.record(request, context, finished)
                yield finished

    def find_images(self, keys: Sequence[str]) -> list[str]:
        """Those of these idempotency keys whose images run here. An ingress replica that has them may join."""
        return self._images.find(keys)

    def drop_image(self, key: str) -> None:
        """An ingress replica wants the image with this key no more."""
        self._images.drop(key)

    def heartbeat(self, ingress: str, queued_s: float) -> ReplicaLoad:
        """An ingress replica is alive, and `queued_s` seconds of device time wait there. Tells what is to do here."""
        self._leases.renew(ingress, queued_s)
        return self._leases.complete(self._engine.replica_load(), ingress)

    def hand_over(self) -> None:
        """Take nothing more, and after the current step end every stream with Draining, its resume point before it."""
        self._leases.is_draining = True
        self._engine.hand_over()

    def interrupt(self, task: str, owner: str) -> int:
        """Let the images of `task` end with their next step if they are `owner`'s. Returns how many that are."""
        return self._tasks.interrupt(task, owner)

    def progress_of(self, task: str, owner: str, preview: bool = False) -> Queued | Progress | None:
        """The latest progress of `task`; None where it does not run here or is not theirs.

        With `preview`, the next step renders one, which a later call gets.
        """
        return self._tasks.progress_of(task, owner, preview)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Seconds of device time: what is in flight here, and what waits at the ingress replicas."""
        return {"work_s": self._engine.replica_load().work_s, "queued_s": self._leases.queued_s}

    def _share_of(self, request: GenerationRequest) -> float:
        engine = self._engine
        return batch_share(work_of(request, engine.capabilities.vae_scale_factor), engine.curve)

    def memory(self) -> MemoryUse:
        """What this replica holds."""
        return self._engine.memory()

    async def capabilities(self) -> ModelCapabilities:
        """What the loaded model can do."""
        return self._engine.capabilities

    def refusal(self) -> str:
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
