"""Whether a request can be done by its deadline: estimated before any work is done, refused at once if not."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from serve_app.deployments.policies.replica_choice import FULL_BATCHES, ReplicaView
from serve_app.deployments.policies.waiting_queue import QueueEntry
from serve_app.errors import Overloaded
from serve_app.requests.step_curve import StepCurve
from serve_app.requests.work import Work, batch_share, batched_seconds, shared_seconds

JITTER = 0.3
"""Retry-After is up to this part longer, so that those who were refused together do not come back together."""
WEIGHT = 0.1
"""Of the last request in the mean ratio of what waiting took to what the model of the queue said."""
RATIO_RANGE = (0.2, 5.0)
SHORT_SECONDS = 1.0
"""Where a request neither waited so long nor was expected to, that tells nothing."""
KEPT_SHARE = 0.95
"""Requests are admitted so that this share of them meets its deadline."""


@dataclass(frozen=True)
class Estimate:
    """Seconds from now: when a replica takes the request, and when its image is done; most are done by `late_s`.

    `modeled_s` is the start by the model of the queue alone, without what was learned.
    """

    start_s: float
    finish_s: float
    late_s: float
    modeled_s: float = 0.0


AT_ONCE = Estimate(0.0, 0.0, 0.0)
"""For what has begun already."""


class WaitEstimator:
    """Estimates when a request starts. It learns from how long others had to wait."""

    def __init__(self) -> None:
        self._ratio = 1.0
        self._late_ratio = 1.0

    def estimate(
        self, ahead_s: float, work: Work, images: int, curve: StepCurve, views: Sequence[ReplicaView], now: float
    ) -> Estimate:
        """For `images` like this behind `ahead_s` seconds of device time: the first's start, the last's finish."""
        slowdown, share = slowdown_of(views), batch_share(work, curve)
        own_s = batched_seconds(work, curve) * slowdown * (images - 1)
        first_s, last_s = (modeled_start(ahead, share, views, now) for ahead in (ahead_s, ahead_s + own_s))
        batches = FULL_BATCHES if last_s else min((view.batches for view in views), default=0.0) + share
        drawn_s = shared_seconds(work, curve, batches) * slowdown
        late_s = max(self._ratio, self._late_ratio) * last_s + drawn_s
        return Estimate(self._ratio * first_s, self._ratio * last_s + drawn_s, late_s, first_s)

    def start_s(self, ahead_s: float, share: float, views: Iterable[ReplicaView], now: float) -> float:
        """Seconds until a replica takes a request. See `modeled_start`."""
        return self._ratio * modeled_start(ahead_s, share, views, now)

    def note(self, entry: QueueEntry, now: float) -> None:
        """A replica takes a request.

        The ratio is to the model alone: many wait before one is noted, and what was learned would be counted twice.
        """
        if entry.modeled_wait_s is None:
            return
        ratio = start_ratio(entry.modeled_wait_s, now - entry.arrived)
        if ratio is None:
            return
        low, high = RATIO_RANGE
        seen = min(high, max(low, ratio))
        self._ratio += WEIGHT * (seen - self._ratio)
        # Goes up in large steps and down in small ones, so that it rests where one of twenty is above it.
        step = KEPT_SHARE if seen > self._late_ratio else KEPT_SHARE - 1.0
        self._late_ratio = min(high, max(low, self._late_ratio * math.exp(WEIGHT * step)))


def start_ratio(expected_s: float, waited_s: float) -> float | None:
    """How many times as long as expected a request waited; None where both are too short to tell anything."""
    return waited_s / max(expected_s, 0.05) if max(expected_s, waited_s) >= SHORT_SECONDS else None


def modeled_start(ahead_s: float, share: float, views: Iterable[ReplicaView], now: float) -> float:
    """Seconds until a replica takes a request that has `ahead_s` seconds of device time before it.

    `share` is its part of a batch. Where a replica has room now and nothing is ahead, that is 0. What waits at other
    ingress replicas takes turns with what waits here.
    """
    able = [view for view in views if not view.is_leaving and view.load is not None]
    if ahead_s == 0.0 and any(view.has_room(share, now) for view in able):
        return 0.0
    loads = [view.load for view in able if view.load is not None]
    others = max((load.others_waiting for load in loads), default=0)
    others_s = max((load.others_queued_s for load in loads), default=0.0)
    next_end = min((view.work_s(now) / max(1, view.images) for view in able), default=0.0)
    return (ahead_s + min(others_s, others * ahead_s)) / max(1, len(able)) + next_end


def slowdown_of(views: Iterable[ReplicaView]) -> float:
    """How many times as long as by the curve steps take, where that is least."""
    return min((view.load.slowdown for view in views if view.load is not None), default=1.0)


def check_room(
    waiting: int, images: int, max_waiting: int, drain_s: float, draw: Callable[[], float] = random.random
) -> None:
    """Refuse where the bounded queue has no place for all `images`. Raises Overloaded."""
    if waiting + images > max_waiting:
        reason = f"{waiting} of at most {max_waiting} images wait"
        raise Overloaded(retry_after(drain_s, draw), reason, estimated_start_s=drain_s)


def check_deadline(estimate: Estimate, deadline_s: float, draw: Callable[[], float] = random.random) -> None:
    """Refuse what might not be done in time. Raises Overloaded."""
    if estimate.late_s > deadline_s:
        reason = f"the image may take {estimate.late_s:.1f} s and must be done within {deadline_s:g} s"
        raise Overloaded(
            retry_after(estimate.late_s - deadline_s, draw),
            reason,
            estimated_start_s=estimate.start_s,
            estimated_finish_s=estimate.finish_s,
            limit="deadline",
        )


def retry_after(seconds: float, draw: Callable[[], float] = random.random) -> int:
    """Whole seconds for the Retry-After header. `draw` gives a number from 0 to 1 for the jitter."""
    return max(1, round(seconds * (1 + JITTER * draw()) + 0.5))
