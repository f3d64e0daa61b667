"""What a config needs of a cluster to start, and what the cluster lacks."""

from collections.abc import Mapping
from typing import Any

from serve_app.config.application import AppConfig
from serve_app.config.gpus import count_gpus, gpu_shares, replicas_at_start
from serve_app.config.names import INGRESS, SAFETY, deployment_of
from serve_app.config.serve_file import IMPORT_PATH, options_by_name


def find_lacking_resources(document: Mapping[str, Any], available: Mapping[str, float]) -> list[str]:
    """A line for each resource of which the replicas that run at start need more than `available`.

    `available` is what Ray says of the cluster, by resource: CPU, GPU.
    """
    gpus: list[tuple[str, float]] = []
    cpus: list[tuple[str, float]] = []
    for application in document["applications"]:
        if application["import_path"] != IMPORT_PATH:
            continue
        app, options = AppConfig.model_validate(application["args"]), options_by_name(application)
        for name, (share, count) in gpu_shares(app, options).items():
            gpus += [(name, share)] * count
        placements = {INGRESS: app.ingress, **{deployment_of(name): one for name, one in app.models.items()}}
        placements |= {SAFETY: app.safety} if app.safety else {}
        for name, placement in placements.items():
            cpus += [(name, placement.num_cpus)] * replicas_at_start(options.get(name, {}))
    found = []
    for unit, needed, shares in (
        ("GPU", count_gpus(share for _, share in gpus), gpus),
        ("CPU", sum(share for _, share in cpus), cpus),
    ):
        has = available.get(unit, 0)
        if needed > has:
            listed = ", ".join(f"{name} {share:g}" for name, share in shares if share)
            found.append(f"the cluster lacks {unit}s: the config needs {needed:g} ({listed}), the cluster has {has:g}")
    return found
