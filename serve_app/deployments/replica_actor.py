"""Short calls to a replica's actor that need no slot, no router and no event loop of the replica's user code."""

import asyncio
from typing import Any

import ray
from ray import serve

from serve_app.requests.events import Progress, Queued, ReplicaLoad

SERVE_NAMESPACE = "serve"


class ReplicaActor:
    """One replica, past Serve's router: `ActorHandle.__ray_call__` runs a function on its main thread.

    Every method may raise RayActorError. None has a timeout of its own.

    Args:
        handle: the actor's handle.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @classmethod
    async def find(cls, actor_name: str) -> "ReplicaActor":
        """The replica by its actor's name. Raises ValueError where there is none."""
        return cls(await asyncio.to_thread(ray.get_actor, actor_name, namespace=SERVE_NAMESPACE))

    async def heartbeat(self, ingress: str, queued_s: float) -> ReplicaLoad:
        """See `ModelReplica.heartbeat`."""
        return await self._call("heartbeat", ingress, queued_s)

    async def hand_over(self) -> None:
        """See `ModelReplica.hand_over`."""
        await self._call("hand_over")

    async def interrupt(self, task: str, owner: str) -> int:
        """See `ModelReplica.interrupt`."""
        return await self._call("interrupt", task, owner)

    async def progress_of(self, task: str, owner: str, preview: bool) -> Queued | Progress | None:
        """See `ModelReplica.progress_of`."""
        return await self._call("progress_of", task, owner, preview)

    async def call(self, method: str, *args: Any) -> Any:
        """What a method of the replica's own object returns. It must not wait."""
        return await self._call(method, *args)

    def kill(self) -> None:
        """End its process at once, also where it is stopped or hangs. Serve starts another one."""
        ray.kill(self._handle, no_restart=True)

    async def _call(self, method: str, *args: Any) -> Any:
        return await self._handle.__ray_call__.remote(call_servable, method, *args)


def call_servable(_actor: Any, method: str, *args: Any) -> Any:
    """Runs in the replica."""
    return getattr(serve.get_replica_context().servable_object, method)(*args)
