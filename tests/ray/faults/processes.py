"""The processes of a running application, to be killed or stopped."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.serve.exceptions import RayServeException

from serve_app.deployments.replica_actor import SERVE_NAMESPACE, call_servable
from serve_app.errors import NotReady

ANSWER_SECONDS = 2.0
MODEL, INGRESS, SAFETY = "model-emoji", "ingress", "safety"


def actors_of(prefix: str) -> dict[str, Any]:
    """The actors whose names begin so, by their names."""
    found: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    names = sorted(one["name"] for one in found if one["name"].startswith(prefix))
    actors: dict[str, Any] = {}
    for name in names:
        try:
            actors[name] = ray.get_actor(name, namespace=SERVE_NAMESPACE)
        except ValueError:
            continue  # it has died since
    return actors


def replicas_of(deployment: str) -> dict[str, Any]:
    """The actors of a deployment's replicas that have not died, by their names."""
    return actors_of(f"SERVE_REPLICA::darkroom#{deployment}#")


def ask(actor: Any, function: Callable[..., Any], *args: Any) -> Any:
    """What `function(the actor's object, *args)` returns in its process; None where it does not answer or starts."""
    try:
        return ray.get(actor.__ray_call__.remote(function, *args), timeout=ANSWER_SECONDS)
    except RayTaskError as error:
        if isinstance(error.cause, RayServeException | NotReady):
            return None
        raise
    except (RayActorError, GetTimeoutError):
        return None


def ask_servable(actor: Any, method: str, *args: Any) -> Any:
    """What a method of a replica's own object returns; None where it does not answer."""
    return ask(actor, call_servable, method, *args)


def pid_of(actor: Any) -> int | None:
    """The actor's process; None where it does not answer."""
    return ask(actor, get_pid)


def get_pid(_actor: Any) -> int:
    """Runs in the actor."""
    return os.getpid()


def count_images(_actor: Any) -> int:
    """Runs in a model's replica: the images in its engine. Raises NotReady while it starts."""
    servable: Any = serve.get_replica_context().servable_object
    if servable is None:
        raise NotReady("the replica starts")
    return servable._engine.replica_load().images


def count_able_replicas(_actor: Any) -> int:
    """Runs in an ingress replica: the model's replicas that may get requests from it."""
    servable: Any = serve.get_replica_context().servable_object
    if servable is None:
        raise NotReady("the replica starts")
    return sum(view.may_begin(time.monotonic()) for view in servable._queues.by_model["emoji"].fleet.views)


def pids_of(deployment: str) -> list[int]:
    """The processes of a deployment's replicas that answer."""
    found = map(pid_of, replicas_of(deployment).values())
    return [pid for pid in found if pid is not None]


def kill(*pids: int) -> None:
    """kill -9."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    """It does not run any more, and does not end."""
    os.kill(pid, signal.SIGSTOP)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, also where it is stopped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
