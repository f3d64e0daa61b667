"""Serve's autoscaling policy for models: as many replicas as do the queued and running work within a given time."""

import math
from typing import Any


class DrainTime:
    """Replicas for the seconds of device time that wait and run, as the replicas tell them.

    An entry of `autoscaling_config`: `policy: {policy_function: "serve_app.deployments.policies.drain_time:DrainTime",
    policy_kwargs: {drain_s: 20}}`. It never raises: a policy that does stops Serve's controller for every application.

    Args:
        drain_s: the seconds in which all work that is there now should be done.
    """

    def __init__(self, drain_s: float = 20.0) -> None:
        self.drain_s = max(0.1, drain_s)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and no state. `ctx` is Serve's `AutoscalingContext`."""
        told = ctx.aggregated_metrics or {}
        work_s = sum(finite(told.get("work_s")))
        # Every replica hears the same queues, and tells them all.
        queued_s = max(finite(told.get("queued_s")), default=0.0)
        if not told and ctx.current_num_replicas:
            return ctx.target_num_replicas, {}
        wanted = min(math.ceil((work_s + queued_s) / self.drain_s), ctx.capacity_adjusted_max_replicas)
        return max(wanted, ctx.capacity_adjusted_min_replicas), {}


def finite(by_replica: Any) -> list[float]:
    """The numbers of a metric that are finite and not negative."""
    values = by_replica.values() if isinstance(by_replica, dict) else ()
    return [float(one) for one in values if isinstance(one, int | float) and math.isfinite(one) and one >= 0]
