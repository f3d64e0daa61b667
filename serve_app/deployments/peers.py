"""The other ingress replicas of this application."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.util import list_named_actors

from serve_app.deployments.replica_actor import SERVE_NAMESPACE, ReplicaActor

ANSWER_SECONDS = 0.5
KNOWN_SECONDS = 2.0


class Peers:
    """Asks every other ingress replica, each with a timeout of its own. None of it needs a slot."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._known_until = 0.0
        self._actors: dict[str, ReplicaActor] = {}

    async def ask(self, method: str, *args: Any) -> list[Any]:
        """What a method of the ingress returns there. It must not wait. Who does not answer is left out."""
        return list((await self.ask_each(method, *args)).values())

    async def ask_each(self, method: str, *args: Any) -> Mapping[str, Any]:
        """As `ask`, each answer by the name of its actor."""
        await self._look()
        names = self._names
        answers = await asyncio.gather(*(self.ask_one(name, method, *args) for name in names), return_exceptions=True)
        found = zip(names, answers, strict=True)
        return {name: answer for name, answer in found if not isinstance(answer, BaseException)}

    async def _look(self) -> None:
        """Find the others where that was long ago. While Ray's head is slow, those that are known are asked."""
        if time.monotonic() < self._known_until:
            return
        self._known_until = time.monotonic() + KNOWN_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                self._names = await asyncio.to_thread(find_peers)
        self._actors = {name: actor for name, actor in self._actors.items() if name in self._names}

    async def ask_one(self, name: str, method: str, *args: Any, timeout_s: float = ANSWER_SECONDS) -> Any:
        """One ingress replica's answer, by the name of its actor. Raises TimeoutError, ValueError and RayError."""
        async with asyncio.timeout(timeout_s):
            if name not in self._actors:
                self._actors[name] = await ReplicaActor.find(name)
            return await self._actors[name].call(method, *args)


def find_peers() -> list[str]:
    """The actors of the other replicas of this replica's deployment. It blocks: call it in a thread."""
    own = serve.get_replica_context().replica_id
    prefix = own.to_full_id_str().removesuffix(own.unique_id)
    try:
        actors: Any = list_named_actors(all_namespaces=True)
    except RayError:  # Ray's head is away
        return []
    names = [one["name"] for one in actors if one["namespace"] == SERVE_NAMESPACE]
    return [name for name in names if name.startswith(prefix) and name != prefix + own.unique_id]
