"""A discrete-event simulation of engines: the real scheduler under a simulated clock, with a step curve for a device.

It loads no torch. `simulated_cluster.py` puts the real policies of the ingress before such engines.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from bodies import SIZES, draw_bodies

from serve_app.engine.scheduler import DeadlineOrder, Scheduler
from serve_app.requests.step_curve import Size, StepCurve
from serve_app.requests.work import PassWork, Work, batched_seconds

OFFLINE_SECONDS = 1e9
"""Longer than any simulation."""


class EventLoop:
    """Simulated time. Calling it tells the seconds, as a policy's clock."""

    def __init__(self) -> None:
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._counter = itertools.count()

    def __call__(self) -> float:
        return self._now

    def at(self, when: float, call: Callable[[], object]) -> None:
        """Call it then."""
        heapq.heappush(self._events, (max(when, self._now), next(self._counter), call))

    def run(self, until: float = OFFLINE_SECONDS) -> None:
        """Let time pass until then, or until nothing is to happen any more."""
        while self._events and self._events[0][0] <= until:
            self._now, _, call = heapq.heappop(self._events)
            call()
        self._now = max(self._now, until) if until < OFFLINE_SECONDS else self._now


@dataclass(eq=False, kw_only=True)
class SimulatedImage:
    """One image of one pass, and what became of it. It is the scheduler's row.

    `due` is when its request is sent, `taken_at` when a replica took it first, `arrived` when its engine got it.
    `parameters` is what batches of equal parameters need equal.
    """

    size: Size
    model_rows: int
    calls: int
    due: float = 0.0
    owner: str = ""
    is_batch: bool = False
    deadline_s: float | None = None
    parameters: Hashable = ()
    guidance_scale: float = 1.0
    arrived: float = 0.0
    calls_left: int = field(init=False)
    taken_at: float | None = None
    first_step_at: float | None = None
    done_at: float | None = None

    def __post_init__(self) -> None:
        self.calls_left = self.calls

    @property
    def group(self) -> Hashable:
        """What one forward needs equal."""
        return self.size

    @property
    def work(self) -> Work:
        """What it costs."""
        return (PassWork(self.size, self.model_rows, self.calls),)

    @property
    def seconds(self) -> float:
        """From its request to its last step."""
        return math.inf if self.done_at is None else self.done_at - self.due


OnDone = Callable[[SimulatedImage], object]


class SimulatedEngine:
    """The rows of a `scheduler` on a device that takes `seconds` for a step of so many rows of a size."""

    def __init__(
        self,
        loop: EventLoop,
        scheduler: Scheduler[SimulatedImage],
        seconds: Callable[[Size, int], float],
        on_done: OnDone = lambda _: None,
    ) -> None:
        self.images: dict[SimulatedImage, None] = {}
        self.busy_s = 0.0
        self.steps: list[tuple[Size, int, float]] = []
        self.is_dead = False
        self._loop = loop
        self._scheduler = scheduler
        self._seconds = seconds
        self._on_done = on_done
        self._is_stepping = False

    def add(self, image: SimulatedImage) -> None:
        """An image arrives."""
        image.arrived = self._loop()
        self.images[image] = None
        self._scheduler.add(image)
        if not self._is_stepping:
            # As in the real loop, what arrives at the same moment is there before the step is planned.
            self._is_stepping = True
            self._loop.at(self._loop(), self._begin_step)

    def _begin_step(self) -> None:
        plan = None if self.is_dead else self._scheduler.plan()
        self._is_stepping = plan is not None
        if plan is None:
            return
        now, rows, size = self._loop(), sum(row.model_rows for row in plan.rows), plan.rows[0].size
        for row in plan.rows:
            row.first_step_at = now if row.first_step_at is None else row.first_step_at
        seconds = self._seconds(size, rows)
        self.steps.append((size, rows, seconds))
        self.busy_s += seconds
        self._loop.at(now + seconds, lambda: self._end_step(plan.rows))

    def _end_step(self, rows: Sequence[SimulatedImage]) -> None:
        if self.is_dead:
            return
        for row in rows:
            row.calls_left -= 1
            if row.calls_left == 0:
                row.done_at = self._loop()
                del self.images[row]
                self._scheduler.discard(row)
                self._on_done(row)
        self._begin_step()


SchedulerOf = Callable[[EventLoop, StepCurve], Scheduler[SimulatedImage]]


def deadline_order(loop: EventLoop, curve: StepCurve) -> DeadlineOrder[SimulatedImage]:
    """The engine's own."""
    return DeadlineOrder[SimulatedImage](curve.cap, curve.seconds_of, loop)


def draw_images(curve: StepCurve, arrivals: Sequence[float], sizes: Sequence[int] = SIZES) -> list[SimulatedImage]:
    """The mixed workload: its 128 px are the curve's size here, its other sizes in proportion."""
    bodies = draw_bodies(len(arrivals), sizes, seed=7)
    return [
        SimulatedImage(
            size=(curve.size[0] * body["height"] // 128, curve.size[1] * body["width"] // 128),
            model_rows=1 + (body["guidance_scale"] > 1),
            calls=body["num_inference_steps"],
            due=due,
            guidance_scale=body["guidance_scale"],
            parameters=(body["sampler"], body["num_inference_steps"], body["guidance_scale"]),
        )
        for body, due in zip(bodies, arrivals, strict=True)
    ]


def capacity(curve: StepCurve, sizes: Sequence[int] = SIZES) -> float:
    """Images of the mixed workload that one device does a second, all steps of it at full width."""
    images = draw_images(curve, [0.0] * 400, sizes)
    return len(images) / sum(batched_seconds(image.work, curve) for image in images)


def run_engine(
    scheduler_of: SchedulerOf, curve: StepCurve, images: Sequence[SimulatedImage], until: float = OFFLINE_SECONDS
) -> SimulatedEngine:
    """One engine, and each image when it is due."""
    loop = EventLoop()
    engine = SimulatedEngine(loop, scheduler_of(loop, curve), curve.seconds_of)
    for image in images:
        loop.at(image.due, lambda image=image: engine.add(image))
    loop.run(until)
    return engine


def slowdowns(images: Sequence[SimulatedImage], curve: StepCurve) -> list[float]:
    """Each image's seconds over those that it takes alone."""
    return [image.seconds / _alone_seconds(image.work, curve) for image in images]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them stay within."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def noisy(seconds: Callable[[Size, int], float], deviation: float, seed: int = 0) -> Callable[[Size, int], float]:
    """A device whose steps take unlike times: log-normal, with a mean of what the curve says."""
    dice = random.Random(seed)
    return lambda size, rows: seconds(size, rows) * dice.lognormvariate(-deviation * deviation / 2, deviation)


def _alone_seconds(work: Work, curve: StepCurve) -> float:
    """Seconds of device time where nothing else runs."""
    return sum(one.calls * curve.seconds_of(one.size, one.rows) for one in work)
