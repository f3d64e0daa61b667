"""A Ray cluster for the time of the command: one of its own, or a running one."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray._private.state import state

from serve_app.errors import ConfigError, shorten

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Without `address`, a cluster is started on this machine: with or without Ray's dashboard.

    `verbose` is whether the log lines of Ray and of all workers are wanted on this process's streams.
    """

    address: str | None = None
    dashboard: bool = False
    verbose: bool = False

    @property
    def starts_cluster(self) -> bool:
        """Whether the cluster begins and ends with the command."""
        return self.address is None


@dataclass(frozen=True)
class RayCluster:
    """What Ray says of a cluster. `log_folder` is this machine's."""

    log_folder: Path
    dashboard_url: str
    resources: dict[str, float]


@contextmanager
def open_cluster(options: ClusterOptions) -> Iterator[RayCluster]:
    """Start a cluster, or connect to one. At the end a cluster that was started ends, another one is left.

    SIGINT and SIGTERM raise KeyboardInterrupt inside.

    Raises:
        ConfigError: there is no cluster at `address`.
    """
    raise_on_signals()
    try:
        found = _connect(options)
        raise_on_signals()  # Ray has put its own handlers there
        yield found
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        ray.shutdown()


def _connect(options: ClusterOptions) -> RayCluster:
    level = logging.INFO if options.verbose else logging.CRITICAL
    logging.getLogger("ray.serve").setLevel(level)
    try:
        started: Any = ray.init(
            address=options.address or "local",
            namespace="serve",
            include_dashboard=options.dashboard if options.starts_cluster else None,
            logging_level=level,
            log_to_driver=options.verbose,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"--address: cannot connect to a Ray cluster at {options.address}"
        raise ConfigError(f"{where if options.address else 'Ray cannot be started'}: {shorten(error, 300)}") from error
    return RayCluster(
        log_folder=Path(started.address_info["session_dir"]) / "logs",
        dashboard_url=started.dashboard_url or "",
        resources=_find_resources(),
    )


def _find_resources() -> dict[str, float]:
    """What the cluster has, and what it may get from its autoscaler."""
    most = state.get_max_resources_from_cluster_config() or {}
    now = ray.cluster_resources()
    return {name: max(now.get(name, 0), most.get(name, 0)) for name in {*now, *most}}


def raise_on_signals() -> None:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
