"""Ingress replicas and model replicas in simulated time: the real policies, the real leases, the real scheduler.

The rest is simulated: calls take no time, and a replica tells its load once a second, so that views are stale.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from simulation import EventLoop, SchedulerOf, SimulatedEngine, SimulatedImage, deadline_order

from serve_app.deployments.policies.admission import Estimate, WaitEstimator, check_deadline, check_room, slowdown_of
from serve_app.deployments.policies.assignment import Assignment, assign
from serve_app.deployments.policies.replica_choice import FULL_SECONDS, ReplicaView, rank_of
from serve_app.deployments.policies.suspicion import Suspicion
from serve_app.deployments.policies.waiting_queue import QueueEntry, WaitingQueue
from serve_app.deployments.stream_leases import Stream, StreamLeases
from serve_app.errors import Overloaded, ReplicaFull
from serve_app.requests.events import ReplicaLoad
from serve_app.requests.step_curve import Size, StepCurve
from serve_app.requests.work import PassWork, batch_share, batched_seconds

BEAT_SECONDS = 1.0


@dataclass(eq=False, kw_only=True)
class SimulatedRun:
    """An accepted image at its ingress: what was estimated, and which replica has it."""

    image: SimulatedImage
    entry: QueueEntry
    estimate: Estimate
    suspicion: Suspicion = field(default_factory=Suspicion)
    given: Assignment | None = None
    refusals: int = 0


class SimulatedReplica:
    """One replica: leases before an engine."""

    def __init__(
        self, loop: EventLoop, name: str, curve: StepCurve, seconds: Callable[[Size, int], float], order: SchedulerOf
    ) -> None:
        self.name = name
        self.curve = curve
        self.slowdown = 1.0
        self.leases = StreamLeases(loop)
        self.engine = SimulatedEngine(loop, order(loop, curve), seconds, self._end)
        self._held: dict[SimulatedImage, tuple[ExitStack, Callable[[], None]]] = {}

    def begin(self, ingress: str, run: SimulatedRun, on_done: Callable[[], None]) -> None:
        """Draw an image. Raises ReplicaFull."""
        assert run.given is not None
        share = batch_share(run.image.work, self.curve)
        stream = Stream(ingress, share, run.entry.is_resumed, run.given.is_suspect, run.given.alone)
        held = ExitStack()
        held.enter_context(self.leases.hold(stream))
        self._held[run.image] = held, on_done
        self.engine.add(run.image)

    def die(self) -> None:
        """The process ends."""
        self.engine.is_dead = True

    def _end(self, image: SimulatedImage) -> None:
        held, on_done = self._held.pop(image)
        held.close()
        on_done()

    def heartbeat(self, ingress: str, queued_s: float) -> ReplicaLoad:
        """See `ModelReplica`."""
        self.leases.renew(ingress, queued_s)
        left = [PassWork(one.size, one.model_rows, one.calls_left) for one in self.engine.images]
        work_s = batched_seconds(left, self.curve) * self.slowdown
        load = ReplicaLoad(images=len(left), work_s=work_s, curve=self.curve, slowdown=self.slowdown)
        return self.leases.complete(load, ingress)


class SimulatedIngress:
    """One ingress replica's queue of a model."""

    def __init__(
        self, loop: EventLoop, name: str, replicas: Sequence[SimulatedReplica], max_waiting: int, deadline_s: float
    ) -> None:
        self.name = name
        self.waiting = WaitingQueue(loop)
        self.estimator = WaitEstimator()
        self.runs: dict[QueueEntry, SimulatedRun] = {}
        self.accepted: list[SimulatedRun] = []
        self.refused: list[tuple[SimulatedImage, Overloaded]] = []
        self.max_waiting, self.deadline_s = max_waiting, deadline_s
        self._loop = loop
        self._replicas = {one.name: one for one in replicas}
        self.views = {one.name: ReplicaView(one.name, rank=rank_of(name, one.name)) for one in replicas}
        self._curve = replicas[0].curve

    def submit(self, images: Sequence[SimulatedImage]) -> None:
        """One request."""
        try:
            estimate = self._check(images)
        except Overloaded as error:
            self.refused += [(image, error) for image in images]
            return
        for image in images:
            entry = self._new_entry(image)
            entry.modeled_wait_s = estimate.modeled_s if image is images[0] else None
            run = SimulatedRun(image=image, entry=entry, estimate=estimate)
            self.runs[entry] = run
            self.accepted.append(run)
            self.waiting.join(entry)
        self._loop.at(self._loop(), self.pump)

    @property
    def queued_s(self) -> float:
        """Seconds of device time that wait here."""
        return sum(entry.cost_s for entry in self.waiting)

    def _check(self, images: Sequence[SimulatedImage]) -> Estimate:
        now, views = self._loop(), list(self.views.values())
        ahead_s = self.waiting.ahead_s(self._new_entry(images[0]))
        check_room(len(self.waiting), len(images), self.max_waiting, self.queued_s / max(1, len(views)))
        estimate = self.estimator.estimate(ahead_s, images[0].work, len(images), self._curve, views, now)
        check_deadline(estimate, images[0].deadline_s or self.deadline_s)
        return estimate

    def _new_entry(self, image: SimulatedImage) -> QueueEntry:
        cost_s = batched_seconds(image.work, self._curve) * slowdown_of(self.views.values())
        return QueueEntry(owner=image.owner, cost_s=cost_s, is_batch=image.is_batch, arrived=self._loop())

    def beat(self, replica: SimulatedReplica) -> None:
        """A heartbeat."""
        if not replica.engine.is_dead:
            self.views[replica.name].note_asked()
            self.views[replica.name].note_load(replica.heartbeat(self.name, self.queued_s), self._loop())
            self.pump()
            self._loop.at(self._loop() + BEAT_SECONDS, lambda: self.beat(replica))

    def pump(self) -> None:
        """Give replicas what they can use."""
        now = self._loop()
        for entry, given in assign(
            self.waiting.ordered(), list(self.views.values()), self._share, self._suspicion, now
        ):
            self.waiting.take(entry)
            run = self.runs[entry]
            if not entry.is_resumed:
                self.estimator.note(entry, now)
            run.given = given
            self._begin(run, given)

    def _begin(self, run: SimulatedRun, given: Assignment) -> None:
        try:
            self._replicas[given.view.unique_id].begin(self.name, run, lambda: self._end(run))
        except ReplicaFull:
            run.refusals += 1
            given.view.full_until = self._loop() + FULL_SECONDS
            given.view.give_back(run.entry)
            self.waiting.come_back(run.entry)
            self._loop.at(self._loop() + FULL_SECONDS, self.pump)
        else:
            run.image.taken_at = self._loop() if run.image.taken_at is None else run.image.taken_at

    def _end(self, run: SimulatedRun) -> None:
        assert run.given is not None
        run.given.view.give_back(run.entry)
        del self.runs[run.entry]
        self.pump()

    def _share(self, entry: QueueEntry, _: ReplicaView) -> float:
        return batch_share(self.runs[entry].image.work, self._curve)

    def _suspicion(self, entry: QueueEntry) -> Suspicion:
        return self.runs[entry].suspicion


class SimulatedCluster:
    """Some ingress replicas before some model replicas. Heartbeats begin at drawn moments."""

    def __init__(
        self,
        curve: StepCurve,
        *,
        replicas: int = 1,
        ingresses: int = 1,
        max_waiting: int = 100,
        deadline_s: float = 600.0,
        seconds: Callable[[Size, int], float] | None = None,
        seed: int = 0,
    ) -> None:
        self.loop, self.curve = EventLoop(), curve
        self.replicas = [
            SimulatedReplica(self.loop, f"r{place}", curve, seconds or curve.seconds_of, deadline_order)
            for place in range(replicas)
        ]
        self.ingresses = [
            SimulatedIngress(self.loop, f"i{place}", self.replicas, max_waiting, deadline_s)
            for place in range(ingresses)
        ]
        dice = random.Random(seed)
        for ingress in self.ingresses:
            for replica in self.replicas:
                ingress.views[replica.name].note_asked()
                ingress.views[replica.name].note_load(replica.heartbeat(ingress.name, 0.0), 0.0)
                self.loop.at(dice.random() * BEAT_SECONDS, lambda one=ingress, other=replica: one.beat(other))

    def send(self, ingress: int, *images: SimulatedImage) -> None:
        """A request, sent when its images are due."""
        self.loop.at(images[0].due, lambda: self.ingresses[ingress].submit(images))
