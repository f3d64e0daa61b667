"""One model on its share of a GPU: an engine behind a Serve deployment."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial

from serve_app.config import ModelConfig, TracingConfig
from serve_app.deployments.metrics import ReplicaMetrics
from serve_app.deployments.spans import ImageSpans, start_tracing
from serve_app.deployments.tasks import Tasks
from serve_app.engine.denoise_loop import EngineCounters
from serve_app.engine.engine import Engine
from serve_app.engine.image_future import ImageFuture
from serve_app.engine.passes import Callbacks
from serve_app.errors import Cancelled
from serve_app.requests.events import MemoryUse, Progress, Queued, ReplicaEvent, ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest


class ModelReplica:
    """Loads, warms up, then turns requests into event streams. Serve routes nothing here before that is done."""

    def __init__(self, config: ModelConfig, name: str = "model", tracing: TracingConfig | None = None) -> None:
        self._engine = Engine.load(config)
        self._tasks = Tasks()
        self._spans = ImageSpans(start_tracing(tracing))
        self._metrics = ReplicaMetrics(name, self._engine)

    async def generate(
        self, request: GenerationRequest, context: CallerContext | None = None, resume_from: ResumePoint | None = None
    ) -> AsyncIterator[ReplicaEvent]:
        """Queued, progress if asked, checkpoints, the image last. Closing the stream frees the request's rows.

        Progress is coalesced: a reader that is slow sees the latest step only, but every preview. With `resume_from`, an
        image that another replica had begun goes on.
        """
        context = context or CallerContext()
        loop = asyncio.get_running_loop()
        told: list[Progress | ResumePoint] = []
        news = asyncio.Event()

        def note(event: Progress | ResumePoint) -> None:
            told[:] = [*(one for one in told if is_kept(one, event)), event]
            news.set()

        def tell(event: Progress | ResumePoint) -> None:
            with suppress(RuntimeError):  # the event loop is closed: nobody listens any more
                loop.call_soon_threadsafe(note, event)

        watched = context.progress or context.previews > 0
        queued = self._engine.queue()
        callbacks = Callbacks(on_progress=tell if watched else None, on_resume_point=tell)
        submit = partial(self._engine.submit, request, context, callbacks, resume_from)
        future = await off_the_loop(submit)
        image = asyncio.wrap_future(future)
        image.add_done_callback(lambda _: news.set())
        try:
            with self._tasks.running(context, future):
                yield queued
                while not image.done():
                    await news.wait()
                    news.clear()
                    while told:
                        event = told.pop(0)
                        if isinstance(event, Progress):
                            self._tasks.note(context, event)
                        yield event
                if image.cancelled():
                    raise Cancelled("stopped by its owner")
                finished = await image
                self._metrics.note(finished)
                self._spans.record(request, context, finished)
                yield finished
        finally:
            future.cancel()

    async def cancel(self, task: str, owner: str) -> int:
        """Stop the images of `task` if they are `owner`'s; how many that were."""
        return self._tasks.cancel(task, owner)

    async def interrupt(self, task: str, owner: str) -> int:
        """Let the images of `task` end with their next step if they are `owner`'s; how many that are."""
        return self._tasks.interrupt(task, owner)

    async def progress_of(self, task: str, owner: str) -> Queued | Progress | None:
        """The latest progress of `task`, with the latest preview; None where it does not run here or is not theirs."""
        return self._tasks.progress_of(task, owner)

    async def memory(self) -> MemoryUse:
        """What this replica holds."""
        return self._engine.memory()

    async def ready(self) -> bool:
        """True: a replica that answers has drawn its warm-up image."""
        return True

    async def check_health(self) -> None:
        """Raises where the engine has died or hangs; Serve then replaces the replica."""
        await asyncio.to_thread(self._engine.check_health)

    def counters(self) -> EngineCounters:
        """What the engine has done so far, and the rows being denoised now."""
        return self._engine.counters

    def __del__(self) -> None:
        if hasattr(self, "_metrics"):
            self._metrics.close()
        if hasattr(self, "_engine"):
            self._engine.close()


async def off_the_loop(submit: Callable[[], ImageFuture]) -> ImageFuture:
    """Submit in a thread, as a sampler may have to be compiled; a caller that leaves meanwhile cancels."""
    submitted = asyncio.get_running_loop().run_in_executor(None, submit)
    try:
        return await asyncio.shield(submitted)
    except asyncio.CancelledError:
        submitted.add_done_callback(_cancel_submitted)
        raise


def is_kept(earlier: Progress | ResumePoint, later: Progress | ResumePoint) -> bool:
    """Whether what is not told yet is still worth telling: every preview, else the latest of each kind."""
    shown = isinstance(earlier, Progress) and earlier.preview is not None
    return shown or type(earlier) is not type(later)


def _cancel_submitted(submitted: asyncio.Future[ImageFuture]) -> None:
    if submitted.exception() is None:
        submitted.result().cancel()
