"""One model's requests at one ingress replica: what waits, and what runs where."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serve_app.config import ModelSettings
from serve_app.deployments.image_run import ImageRun
from serve_app.deployments.lost_work import LossReason, LostWork
from serve_app.deployments.policies import admission
from serve_app.deployments.policies.assignment import assign, assign_running
from serve_app.deployments.policies.replica_choice import FULL_SECONDS, ReplicaView
from serve_app.deployments.policies.suspicion import Suspicion
from serve_app.deployments.policies.waiting_queue import QueueEntry, WaitingQueue
from serve_app.deployments.queue_metrics import QueueMetrics, QueueSample
from serve_app.deployments.replica_call import call_replica
from serve_app.deployments.replica_fleet import ReplicaFleet
from serve_app.deployments.wake_call import WakeCall
from serve_app.errors import DarkroomError
from serve_app.requests.events import Queued
from serve_app.requests.idempotency import context_of_image
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.step_curve import StepCurve
from serve_app.requests.work import Work, batch_share, batched_seconds, work_of

UNKNOWN_CURVE = StepCurve(size=(64, 64), seconds={1: 1e-6})
"""Until a replica has told its own: nothing takes any time worth counting."""


class ModelQueue:
    """The queue of one model. It is the only one that calls the model's replicas to generate.

    Args:
        handle: the model's deployment handle, with `stream=True`.
        name: the name under which replicas know this ingress replica.
        settings: how long the queue may be, and how long images may take.
        clock: seconds that never go back.
        metrics: what operators see of it.
    """

    def __init__(
        self,
        handle: Any,
        name: str,
        settings: ModelSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        metrics: QueueMetrics | None = None,
    ) -> None:
        self.settings = settings or ModelSettings()
        self._handle = handle
        self._name = name
        self._clock = clock
        self._waiting = WaitingQueue(clock)
        self._runs: dict[QueueEntry, ImageRun] = {}
        self._estimator = admission.WaitEstimator()
        self._order: dict[QueueEntry, int] = {}
        self._wake = WakeCall(handle, self._fail_waiting, self.pump_soon)
        self._metrics = metrics or QueueMetrics()
        self._pumping: asyncio.Handle | None = None
        self.fleet = ReplicaFleet(name, self.queued_s, self.pump_soon, self._lose, self._metrics)

    def admit(
        self,
        requests: Sequence[GenerationRequest],
        context: CallerContext,
        vae_scale_factor: int,
        running: Mapping[str, str] = {},
    ) -> list[ImageRun]:
        """Let all images of a request wait, or none.

        `running` are those that a replica draws for nobody any more: its unique id by their key. They go on there, and
        the others of their request go first: it was accepted before.

        Raises:
            Overloaded: the queue is full, or they would not be done by their deadline.
        """
        work = work_of(requests[0], vae_scale_factor)
        estimate = admission.AT_ONCE if running else self.check(len(requests), work, context)
        runs = [
            self._new_run(request, context_of_image(context, index), vae_scale_factor, estimate)
            for index, request in enumerate(requests)
        ]
        for run in runs[1:]:
            run.entry.modeled_wait_s = None
        for run in runs:
            self._runs[run.entry] = run
            view = self.fleet.view_of(running.get(run.context.idempotency_key))
            if view is not None:
                run.assign(assign_running(run.entry, view, batch_share(run.work, self.curve)))
            elif running:
                self._waiting.resume(run.entry)
            else:
                self._waiting.join(run.entry)
        self.pump_soon()
        return runs

    def check(self, images: int, work: Work, context: CallerContext) -> admission.Estimate:
        """When the first of `images` like this would start, and the last would be done. Raises Overloaded."""
        views, settings = self.fleet.views, self.settings
        ahead_s = self._waiting.ahead_s(self._new_entry(work, context, 0.0))
        estimate = self._estimator.estimate(ahead_s, work, images, self.curve, views, self._clock())
        with self._metrics.counting_refusals(images):
            admission.check_room(len(self._waiting), images, settings.max_waiting, self.queued_s() / max(1, len(views)))
            admission.check_deadline(estimate, context.deadline_s or settings.deadline_s)
        return estimate

    def _new_run(
        self, request: GenerationRequest, context: CallerContext, vae_scale_factor: int, estimate: admission.Estimate
    ) -> ImageRun:
        work = work_of(request, vae_scale_factor)
        entry, start_s = self._new_entry(work, context, estimate.modeled_s), estimate.start_s
        return ImageRun(queue=self, request=request, context=context, work=work, entry=entry, estimated_start_s=start_s)

    def _new_entry(self, work: Work, context: CallerContext, modeled_wait_s: float) -> QueueEntry:
        return QueueEntry(
            task=context.task,
            owner=context.owner,
            cost_s=batched_seconds(work, self.curve) * admission.slowdown_of(self.fleet.views),
            is_batch=context.is_batch,
            arrived=self._clock(),
            modeled_wait_s=modeled_wait_s,
        )

    @property
    def curve(self) -> StepCurve:
        """The step curve that a replica told last."""
        return self.fleet.curve or UNKNOWN_CURVE

    def queued_s(self) -> float:
        """Seconds of device time that wait here."""
        return sum(entry.cost_s for entry in self._waiting)

    def sample(self) -> QueueSample:
        """What waits now, and how long a request that came now would wait."""
        queued_s = self.queued_s()
        wait_s = self._estimator.start_s(queued_s, 0.0, self.fleet.views, self._clock())
        return QueueSample(len(self._waiting), queued_s, wait_s, self.settings.deadline_s)

    def use(self, settings: ModelSettings) -> None:
        """Follow these settings from now on. Call it on the event loop."""
        self.settings = settings
        self._metrics.follow(self.sample)

    def call(self, run: ImageRun) -> Any:
        """See `RunQueue`."""
        return call_replica(self._handle, run, self._name)

    def hang_up(self, run: ImageRun, response: Any) -> None:
        """See `RunQueue`."""
        response.cancel()
        if run.given is not None and run.context.idempotency_key:
            self.fleet.drop(run.given.view.unique_id, run.context.idempotency_key)

    def position_of(self, run: ImageRun) -> Queued:
        """See `RunQueue`."""
        position = self._order.get(run.entry, 0)
        waited = self._clock() - run.entry.arrived
        return Queued(position, max(0.0, run.estimated_start_s - waited))

    def note_progress(self, run: ImageRun) -> None:
        """See `RunQueue`."""
        run.suspicion.note_progress()
        if run.given is not None:
            run.given.view.is_proven = True
            if run.given.view.suspect is run.entry:
                run.given.view.suspect = None
                self.pump_soon()

    async def note_loss(self, run: ImageRun, lost: LostWork) -> None:
        """See `RunQueue`."""
        assert run.given is not None
        view = run.given.view
        self._metrics.note_loss(lost.reason)
        view.full_until = self._clock() + FULL_SECONDS
        asyncio.get_running_loop().call_later(FULL_SECONDS, self.pump_soon)
        died = lost.ended_replica
        if died is None:
            died = not await self.fleet.is_alive(view)
        if died:
            self.fleet.end(view, lost.reason)

    def give_back(self, run: ImageRun) -> None:
        """See `RunQueue`."""
        if run.given is not None:
            run.given.view.give_back(run.entry)
            run.given = None
            self.pump_soon()

    def come_back(self, run: ImageRun) -> None:
        """See `RunQueue`."""
        self._waiting.come_back(run.entry)
        self.pump_soon()

    def remove(self, run: ImageRun) -> None:
        """See `RunQueue`. It may be called more than once."""
        self.give_back(run)
        self._waiting.leave(run.entry)
        if self._runs.pop(run.entry, None) is not None:
            self._metrics.note_convicted(run.suspicion.is_convicted)
            self.pump_soon()

    def find(self, task: str, owner: str, only_waiting: bool = False) -> list[ImageRun]:
        """The images of an owner's task; with `only_waiting`, those that no replica has. Any thread may call it."""
        return [
            run
            for run in list(self._runs.values())
            if (run.entry.task, run.entry.owner) == (task, owner) and not (only_waiting and run.given)
        ]

    def pump_soon(self) -> None:
        """Give replicas what they can use, once all that happens now has happened."""
        if self._pumping is None:
            self._pumping = asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        """Give replicas what they can use."""
        self._pumping = None
        now = self._clock()
        ordered = self._waiting.ordered()
        for entry, given in assign(ordered, self.fleet.views, self._share, self._suspicion_of, now):
            self._waiting.take(entry)
            run = self._runs[entry]
            if not entry.is_resumed:
                self._estimator.note(entry, now)
                self._metrics.note_start(run.estimated_start_s, now - entry.arrived)
            run.assign(given)
        self._order = {entry: place for place, entry in enumerate(one for one in ordered if one in self._waiting)}
        if self._waiting and not self.fleet.views:
            self._wake.begin()

    def _share(self, entry: QueueEntry, view: ReplicaView) -> float:
        return batch_share(self._runs[entry].work, view.load.curve) if view.load is not None else 0.0

    def _suspicion_of(self, entry: QueueEntry) -> Suspicion:
        return self._runs[entry].suspicion

    def _fail_waiting(self, error: DarkroomError) -> None:
        if not self.fleet.views:
            for entry in self._waiting:
                self._runs[entry].abort(error)

    def _lose(self, view: ReplicaView, reason: LossReason) -> None:
        """A replica is dead: all that ran there goes on elsewhere."""
        for entry in list(view.running):
            run = self._runs[entry]
            if not view.is_draining:
                run.suspicion.note_death(was_only_suspect=view.suspect is entry)
            run.abort(LostWork(reason))
        self.pump_soon()
