"""One image at the ingress: it waits, a replica draws it, and it goes on in another one where that is lost."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from serve_app.deployments.lost_work import STREAM_ERRORS, LostWork, answer_of, as_own_error
from serve_app.deployments.policies.assignment import Assignment
from serve_app.deployments.policies.suspicion import Suspicion
from serve_app.deployments.policies.waiting_queue import QueueEntry
from serve_app.errors import DarkroomError, GenerationFailed, Poisoned
from serve_app.requests.events import Event, GeneratedImage, Queued, ReplicaEvent, ResumePoint
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.work import Work

BEAT_SECONDS = 0.5
"""How often a waiting caller is told its position, if that has changed."""
START_SECONDS = 10.0
"""A replica that has not begun a request by then is not waited for."""
MAX_LOSSES = 20
"""So many losses with no resume point between them end a request, whatever their cause."""

T = TypeVar("T")


class RunQueue(Protocol):
    """What a run needs of its model's queue."""

    def call(self, run: "ImageRun") -> Any:
        """The response stream of the replica that was chosen."""
        ...

    def hang_up(self, run: "ImageRun", response: Any) -> None:
        """End a response stream before its image has come."""
        ...

    def position_of(self, run: "ImageRun") -> Queued:
        """How many requests are ahead, and in about how many seconds it starts."""
        ...

    def note_progress(self, run: "ImageRun") -> None:
        """The run has told a resume point, or its image has come."""
        ...

    async def note_loss(self, run: "ImageRun", lost: LostWork) -> None:
        """Its replica no longer draws the run. Returns once it is known whether the replica has died."""
        ...

    def give_back(self, run: "ImageRun") -> None:
        """The run needs its replica no longer."""
        ...

    def come_back(self, run: "ImageRun") -> None:
        """The run waits again, before all others if a replica had begun it."""
        ...

    def remove(self, run: "ImageRun") -> None:
        """The run has ended."""
        ...


@dataclass(eq=False, kw_only=True)
class ImageRun:
    """One image, from its admission to its end. The queue sets `given` when it has chosen a replica."""

    queue: RunQueue
    request: GenerationRequest
    context: CallerContext
    work: Work
    entry: QueueEntry
    estimated_start_s: float = 0.0
    suspicion: Suspicion = field(default_factory=Suspicion)
    saved: ResumePoint | None = None
    given: Assignment | None = None
    losses: int = 0

    def __post_init__(self) -> None:
        self._assigned = asyncio.Event()
        self._aborted = new_future()
        self._stopped: DarkroomError | None = None

    def assign(self, given: Assignment) -> None:
        """A replica is chosen."""
        self.given = given
        self._assigned.set()

    def abort(self, error: DarkroomError | LostWork) -> None:
        """End what is under way. A DarkroomError ends the run; after LostWork it goes on."""
        if isinstance(error, DarkroomError):
            self._stopped = self._stopped or error
        if not self._aborted.done():
            self._aborted.set_exception(error)

    async def events(self) -> AsyncGenerator[Event, None]:
        """The position while it waits, progress if asked, the image last. Closing the iterator stops the work.

        Raises:
            Cancelled: its owner stopped it.
            NotReady: no replica works.
            Poisoned: every replica that drew it alone died.
            GenerationFailed: it was lost too often.
        """
        try:
            while True:
                async with aclosing(self._wait()) as positions:
                    async for queued in positions:
                        yield queued
                try:
                    async with aclosing(self._draw()) as events:
                        async for event in events:
                            yield event
                    return
                except LostWork as lost:
                    await self.queue.note_loss(self, lost)
                    self._check_losses(lost)
                finally:
                    self.queue.give_back(self)
                self.queue.come_back(self)
        finally:
            self.queue.remove(self)

    async def _wait(self) -> AsyncGenerator[Queued, None]:
        """Until a replica is chosen. Whoever is accepted is told so, also where none has to wait."""
        told: int | None = None
        while told is None or not self._assigned.is_set():
            queued = self.queue.position_of(self)
            if queued.position != told:
                told = queued.position
                if not self.entry.is_resumed:
                    yield queued
            if not self._assigned.is_set():
                await race(self._assigned.wait(), self._aborted, BEAT_SECONDS)

    async def _draw(self) -> AsyncGenerator[Event, None]:
        """One attempt in one replica. Raises LostWork, and the request's own errors."""
        response = self.queue.call(self)
        finished, timeout_s = False, START_SECONDS
        try:
            while not finished:
                event = await self._next_event(response, timeout_s)
                timeout_s = None
                self.entry.is_resumed = True
                if isinstance(event, ResumePoint):
                    self.saved, self.losses = event, 0
                    self.queue.note_progress(self)
                elif not isinstance(event, Queued):
                    finished = isinstance(event, GeneratedImage)
                    if finished:
                        self.queue.note_progress(self)
                        self.queue.give_back(self)
                    yield event
        finally:
            if not finished:
                self.queue.hang_up(self, response)

    async def _next_event(self, response: Any, timeout_s: float | None) -> ReplicaEvent:
        try:
            event = await race(next_or_none(response), self._aborted, timeout_s)
        except STREAM_ERRORS as error:
            raise as_own_error(error) from None
        if event is None:
            raise LostWork("silent", ended_replica=None)
        return event

    def _check_losses(self, lost: LostWork) -> None:
        """Raise where the run must not go on."""
        self.losses += not lost.is_refusal
        self._assigned.clear()
        self._aborted = new_future()
        if self._stopped is not None:
            raise self._stopped
        if self.suspicion.is_convicted:
            raise Poisoned("the replicas that drew this image died, the last one while nothing else ran")
        if self.losses > MAX_LOSSES:
            raise GenerationFailed(f"the image was lost {self.losses} times ({lost.reason} last)")


def new_future() -> "asyncio.Future[None]":
    """A future that nobody need ask for its exception."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def next_or_none(response: Any) -> ReplicaEvent:
    """The stream's next event. Raises LostWork where it has ended."""
    try:
        return await answer_of(anext(response))
    except StopAsyncIteration:
        raise LostWork("stream_ended", ended_replica=None) from None


async def race(work: Coroutine[Any, Any, T], aborted: "asyncio.Future[None]", timeout_s: float | None) -> T | None:
    """What `work` returns; None where it takes longer than `timeout_s`. If `aborted` is first, its error is raised."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, aborted}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not task.done():
            task.cancel()
    if task.done() and not task.cancelled() and task.exception() is None:
        return task.result()
    if aborted.done():
        aborted.result()
    if task.cancelled():
        raise LostWork("stream_ended", ended_replica=None)
    return task.result() if task.done() else None
