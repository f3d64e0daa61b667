"""How many replicas there are, and how many GPUs they need."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from serve_app.config.application import AppConfig, Placement
from serve_app.config.names import INGRESS, SAFETY, deployment_of

AUTO_REPLICAS = 100
"""The most replicas of a deployment with `num_replicas: auto`."""


def find_missing_gpus(app: AppConfig, options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why the replicas do not fit `gpus` at start, and `max_gpus` when each deployment has all that it may get.

    `options` are the entries of `deployments:` by name.
    """
    limits = (
        ("gpus", app.gpus, "that run at start", replicas_at_start),
        ("max_gpus", app.max_gpus, "that may run", max_replicas),
    )
    found: list[str] = []
    for key, limit, which, count_of in limits:
        shares = gpu_shares(app, options, count_of)
        needed = count_gpus([share for share, count in shares.values() for _ in range(count)])
        if limit is not None and needed > limit:
            listed = ", ".join(
                f"{count} x {name} {share:g}" for name, (share, count) in shares.items() if share * count
            )
            found.append(f"{key}: must be at least {needed} for the replicas {which} ({listed}), got {limit}")
    return found


def gpu_shares(
    app: AppConfig,
    options: Mapping[str, Mapping[str, Any]],
    count_of: Callable[[Mapping[str, Any]], int],
) -> dict[str, tuple[float, int]]:
    """Each deployment's GPU share, and its number of replicas as `count_of` tells it from its options."""
    placements = {INGRESS: app.ingress}
    placements |= {deployment_of(name): placement for name, placement in app.models.items()}
    if app.safety is not None:
        placements[SAFETY] = app.safety
    return {
        name: (share_of(placement, options.get(name, {})), count_of(options.get(name, {})))
        for name, placement in placements.items()
    }


def share_of(placement: Placement, options: Mapping[str, Any]) -> float:
    """The GPUs of a replica: `ray_actor_options` of a deployment replace its placement."""
    actor = options.get("ray_actor_options")
    share = actor.get("num_gpus", 0) if isinstance(actor, Mapping) else placement.num_gpus
    return float(share) if isinstance(share, int | float) else 0.0


def replicas_at_start(options: Mapping[str, Any]) -> int:
    """How many replicas an entry of `deployments:` starts with."""
    scaling = options.get("autoscaling_config")
    if isinstance(scaling, Mapping):
        first = scaling.get("initial_replicas")
        return _whole(scaling.get("min_replicas") if first is None else first, 1)
    return _whole(options.get("num_replicas"), 1)


def max_replicas(options: Mapping[str, Any]) -> int:
    """How many replicas an entry of `deployments:` may get."""
    scaling = options.get("autoscaling_config")
    if isinstance(scaling, Mapping):
        return _whole(scaling.get("max_replicas"), 1)
    return AUTO_REPLICAS if options.get("num_replicas") == "auto" else _whole(options.get("num_replicas"), 1)


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def count_gpus(shares: Iterable[float]) -> int:
    """How many GPUs replicas of these shares need: packed first fit, largest first. Whole numbers take whole GPUs."""
    ordered = sorted(shares, reverse=True)
    whole = sum(int(share) for share in ordered if share >= 1)
    free: list[float] = []
    for share in (share for share in ordered if 0 < share < 1):
        place = next((index for index, room in enumerate(free) if room >= share - 1e-9), None)
        if place is None:
            free.append(1 - share)
        else:
            free[place] -= share
    return whole + len(free)
