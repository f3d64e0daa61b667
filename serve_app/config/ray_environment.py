"""The environment that Ray must be started with, declared once: what each front end needs, and why.

`darkroom serve` sets it; the Dockerfile and `k8s/base/environment.env` repeat it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from serve_app.config.proxy_variable import PROXY_CALLBACK, PROXY_VARIABLE

FRONT_END_VARIABLE = "RAY_SERVE_ENABLE_HA_PROXY"
BINARY_VARIABLE = "RAY_SERVE_HAPROXY_BINARY_PATH"
HAPROXY_PROGRAM = Path(__file__).parents[1] / "deployments" / "darkroom_haproxy.py"
"""In this package. The image has a copy at `HAPROXY_IN_IMAGE`."""
HAPROXY_IN_IMAGE = Path("/usr/local/bin/darkroom_haproxy.py")


@dataclass(frozen=True)
class RayVariable:
    """A variable, its value in production, and what it is for. `local` is its value under `darkroom serve`."""

    name: str
    value: str
    why: str
    local: str = ""


EITHER_FRONT_END = (
    RayVariable(PROXY_VARIABLE, PROXY_CALLBACK, "Bodies are judged before Serve has read them."),
    RayVariable("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "2", "A dead proxy is replaced within seconds."),
    RayVariable("FORWARDED_ALLOW_IPS", "", "A client's address is that of its connection, whatever its headers say."),
)
HAPROXY = (
    RayVariable(FRONT_END_VARIABLE, "1", "HAProxy is the front end, and ingress replicas answer HTTP themselves."),
    RayVariable(
        BINARY_VARIABLE,
        str(HAPROXY_IN_IMAGE),
        "HAProxy tells the clients' addresses, and its statistics are closed.",
        local=str(HAPROXY_PROGRAM),
    ),
    RayVariable("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1", "Handles call by gRPC: a dead ingress replica ends its calls."),
    RayVariable(
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH",
        str(256 * 1024 * 1024),
        "Images and resume points are larger than gRPC's 4 MiB.",
    ),
    RayVariable(
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD",
        "0",
        "A response waits for a client that reads slowly, instead of being held whole.",
    ),
    RayVariable("RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S", "600", "A reload of HAProxy does not cut images that are slow."),
    RayVariable(
        "RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S", "10", "After a reload, idle connections move to the new process soon."
    ),
    RayVariable(
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
        "30",
        "An ingress replica that stops is reachable until every HAProxy has left it.",
        local="2",
    ),
)


def local_environment(haproxy: bool) -> dict[str, str]:
    """What `darkroom serve` sets for a cluster on this machine."""
    wanted = (*EITHER_FRONT_END, *(HAPROXY if haproxy else ()))
    return {one.name: one.local or one.value for one in wanted}


def production_environment() -> dict[str, str]:
    """What every node of a cluster in production is started with."""
    return {one.name: one.value for one in (*EITHER_FRONT_END, *HAPROXY)}


def runs_haproxy() -> bool:
    """Whether Ray was started with HAProxy as its front end."""
    return os.environ.get(FRONT_END_VARIABLE) == "1"


def names_front_end() -> bool:
    """Whether the environment says which front end Ray starts."""
    return FRONT_END_VARIABLE in os.environ


def trusted_balancers() -> str:
    """The load balancers whose `X-Forwarded-For` is believed: addresses, or `*`, as uvicorn reads them."""
    return os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")


def haproxy_tells_clients() -> bool:
    """Whether that HAProxy is started by our program, so that it tells the clients' addresses."""
    return runs_haproxy() and Path(os.environ.get(BINARY_VARIABLE, "")).name == HAPROXY_PROGRAM.name
