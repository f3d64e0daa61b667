"""Whether a request can be done by its deadline: estimated before any work is done, refused at once if not."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serve_app.deployments.policies.replica_choice import ReplicaView
from serve_app.errors import Overloaded

JITTER = 0.3
"""Retry-After is up to this part longer, so that those who were refused together do not come back together."""
PAST_WEIGHT = 0.8
"""The weight of the past in the mean ratio of what waiting took to what was estimated."""
RATIO_RANGE = (0.2, 5.0)


@dataclass(frozen=True)
class Estimate:
    """Seconds from now: when a replica takes the request, and when its image is done."""

    start_s: float
    finish_s: float


class WaitEstimator:
    """Estimates when a request starts. It learns from how long others had to wait."""

    def __init__(self) -> None:
        self._ratio = 1.0

    def start_s(self, ahead_s: float, share: float, views: Iterable[ReplicaView], now: float) -> float:
        """Seconds until a replica takes a request behind which `ahead_s` seconds of device time wait already.

        `share` is its part of a batch. Where a replica has room now and nothing is ahead, that is 0.
        """
        able = [view for view in views if not view.is_leaving and view.load is not None]
        if ahead_s == 0.0 and any(view.has_room(share, now) for view in able):
            return 0.0
        running = [view.work_s(now) / max(1, len(view.running)) for view in able]
        next_end = min(running, default=0.0)
        return self._ratio * (ahead_s / max(1, len(able)) + next_end)

    def note(self, estimated_s: float, waited_s: float) -> None:
        """A request was estimated to wait for so long, and did wait for so long."""
        if max(estimated_s, waited_s) < 1.0:
            return  # too short to tell anything
        low, high = RATIO_RANGE
        seen = min(high, max(low, self._ratio * waited_s / max(estimated_s, 0.05)))
        self._ratio = PAST_WEIGHT * self._ratio + (1 - PAST_WEIGHT) * seen


def check_room(
    waiting: int, images: int, max_waiting: int, drain_s: float, draw: Callable[[], float] = random.random
) -> None:
    """Refuse where the bounded queue has no place for all `images`. Raises Overloaded."""
    if waiting + images > max_waiting:
        reason = f"{waiting} of at most {max_waiting} images wait"
        raise Overloaded(retry_after(drain_s, draw), reason, estimated_start_s=drain_s)


def check_deadline(estimate: Estimate, deadline_s: float, draw: Callable[[], float] = random.random) -> None:
    """Refuse what would not be done in time. Raises Overloaded."""
    if estimate.finish_s > deadline_s:
        reason = f"the image would take about {estimate.finish_s:.1f} s and must be done within {deadline_s:g} s"
        late_s = estimate.finish_s - deadline_s
        raise Overloaded(
            retry_after(late_s, draw),
            reason,
            estimated_start_s=estimate.start_s,
            estimated_finish_s=estimate.finish_s,
            limit="deadline",
        )


def retry_after(seconds: float, draw: Callable[[], float] = random.random) -> int:
    """Whole seconds for the Retry-After header. `draw` gives a number from 0 to 1 for the jitter."""
    return max(1, round(seconds * (1 + JITTER * draw()) + 0.5))
