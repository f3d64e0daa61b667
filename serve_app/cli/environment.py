"""The environment of Ray and its workers. Ray reads it while it is imported, so it is set before that."""

import os
import sys
import warnings
from pathlib import Path

from serve_app.cli.front_end import FrontEnd


def prepare_environment(
    *, own_cluster: bool = False, verbose: bool = False, front_end: FrontEnd = FrontEnd.PYTHON
) -> None:
    """Set what the operator has not set.

    Args:
        own_cluster: the process starts a Ray cluster, so that the cluster has this environment.
        verbose: warnings and every log line are wanted.
        front_end: that of an own cluster.
    """
    # Imported here, not above: it takes the time of pydantic, which --help does not need.
    from serve_app.config.ray_environment import FRONT_END_VARIABLE, local_environment

    wanted = {"RAY_USAGE_STATS_ENABLED": "0"}
    if own_cluster:
        # Ray's default for a new cluster, without the warning that says so.
        wanted["RAY_AUTH_MODE"] = "token"
        haproxy = front_end is FrontEnd.HAPROXY
        wanted |= local_environment(haproxy)
        os.environ[FRONT_END_VARIABLE] = "1" if haproxy else "0"
        # HAProxy's program is started with the first `python3` that is found.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if verbose:
        # Ray takes access log lines for repetitions of one line.
        wanted["RAY_DEDUP_LOGS"] = "0"
    else:
        warnings.simplefilter("ignore")
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
