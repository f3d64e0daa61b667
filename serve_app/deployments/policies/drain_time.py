"""Serve's autoscaling policy for models: as many replicas as do the queued and running work within a given time."""

import math
from typing import Any

DRAIN_SECONDS = 20.0
STRANGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What reading metrics of an unexpected kind raises."""


class DrainTime:
    """Replicas for the seconds of device time that wait and run, as the replicas tell them.

    An entry of `autoscaling_config`: `policy: {policy_function: "serve_app.deployments.policies.drain_time:DrainTime",
    policy_kwargs: {drain_s: 20}}`. It never raises: a policy that does stops Serve's controller for every application.

    Serve gives means over `look_back_period_s`, and follows a number only when it has been asked for during
    `upscale_delay_s` or `downscale_delay_s`: so nothing is smoothed here. What is returned while there is no replica is
    done at once; there the metrics are empty, and a handle call that waits wakes the model without asking a policy.

    Args:
        drain_s: the seconds in which all work that is there now should be done.
    """

    def __init__(self, drain_s: float = DRAIN_SECONDS) -> None:
        self.drain_s = max(0.1, drain_s) if is_number(drain_s) else DRAIN_SECONDS

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and no state. `ctx` is Serve's `AutoscalingContext`."""
        try:
            return self._count(ctx), {}
        except STRANGE:
            return ctx.target_num_replicas, {}

    def _count(self, ctx: Any) -> int:
        told = ctx.aggregated_metrics or {}
        work_s, queued_s = numbers_of(told.get("work_s")), numbers_of(told.get("queued_s"))
        if not work_s and not queued_s and ctx.current_num_replicas:
            return ctx.target_num_replicas  # they have told nothing that can be used
        # Each replica adds up what waits at all ingress replicas. So all tell the same, but for those that are new.
        seconds = sum(work_s) + max(queued_s, default=0.0)
        least, most = ctx.capacity_adjusted_min_replicas, ctx.capacity_adjusted_max_replicas
        return max(least, math.ceil(min(seconds / self.drain_s, most)))


def is_number(value: object) -> bool:
    """Whether a value is a finite number, 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def numbers_of(by_replica: Any) -> list[float]:
    """The numbers of a metric that can be used."""
    values = by_replica.values() if isinstance(by_replica, dict) else ()
    return [float(value) for value in values if is_number(value)]
