"""The environment of Ray and its workers. Ray reads it while it is imported, so it is set before that."""

import os
import warnings


def prepare_environment(*, own_cluster: bool = False, verbose: bool = False) -> None:
    """Set what the operator has not set.

    Args:
        own_cluster: the process starts a Ray cluster, so that the cluster has this environment.
        verbose: warnings and every log line are wanted.
    """
    # Imported here, not above: it takes the time of pydantic, which --help does not need.
    from serve_app.config.proxy_variable import PROXY_CALLBACK, PROXY_VARIABLE

    wanted = {"RAY_USAGE_STATS_ENABLED": "0"}
    if own_cluster:
        # Ray's default for a new cluster, without the warning that says so.
        wanted["RAY_AUTH_MODE"] = "token"
        wanted[PROXY_VARIABLE] = PROXY_CALLBACK
        # Else uvicorn believes what any client on this machine says of its address.
        wanted["FORWARDED_ALLOW_IPS"] = ""
    if verbose:
        # Ray takes access log lines for repetitions of one line.
        wanted["RAY_DEDUP_LOGS"] = "0"
    else:
        warnings.simplefilter("ignore")
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
