"""What a config needs of a cluster to start, and what the cluster lacks."""

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.config.application import AppConfig, Placement
from serve_app.config.gpus import count_gpus, gpu_shares, replicas_at_start
from serve_app.config.names import INGRESS, SAFETY, deployment_of
from serve_app.config.serve_file import IMPORT_PATH, options_by_name


def find_lacking_resources(document: Mapping[str, Any], available: Mapping[str, float], where: str) -> list[str]:
    """A line for each resource of which the replicas that run at start need more than `available`.

    Args:
        document: a config file without mistakes.
        available: how much there is of each of Ray's resources, such as CPU and GPU.
        where: whose resources these are, for the message.
    """
    gpus: list[tuple[str, float]] = []
    cpus: list[tuple[str, float]] = []
    for application in document["applications"]:
        if application["import_path"] == IMPORT_PATH:
            app, options = AppConfig.model_validate(application["args"]), options_by_name(application)
            gpus += [
                (name, share)
                for name, (share, count) in gpu_shares(app, options, replicas_at_start).items()
                for _ in range(count)
            ]
            cpus += _cpu_shares(app, options)
    needed = {"GPU": count_gpus(share for _, share in gpus), "CPU": sum(share for _, share in cpus)}
    return [
        f"needs {needed[unit]:g} {unit}s for the replicas that run at start ({_list(shares)}), {where} has {has:g}"
        for unit, shares in (("GPU", gpus), ("CPU", cpus))
        if needed[unit] > (has := available.get(unit, 0))
    ]


def _cpu_shares(app: AppConfig, options: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """The CPUs of each replica that runs at start, with its deployment's name."""
    placements: dict[str, Placement] = {INGRESS: app.ingress}
    placements |= {deployment_of(name): placement for name, placement in app.models.items()}
    placements |= {SAFETY: app.safety} if app.safety is not None else {}
    for name, placement in placements.items():
        own = options.get(name, {})
        actor = own.get("ray_actor_options")
        # Ray's default for an actor of Serve that names none is 1.
        share = actor.get("num_cpus", 1) if isinstance(actor, Mapping) else placement.num_cpus
        yield from ((name, share) for _ in range(replicas_at_start(own)))


def _list(shares: list[tuple[str, float]]) -> str:
    counts: dict[tuple[str, float], int] = {}
    for entry in shares:
        counts[entry] = counts.get(entry, 0) + 1
    return ", ".join(f"{count} x {name} {share:g}" for (name, share), count in counts.items() if share)
