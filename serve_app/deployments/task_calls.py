"""Calls about a running task: its progress, its interrupt, its end. They need no slot, and wait a second at most."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from ray.exceptions import RayError

from serve_app.deployments.image_run import ImageRun
from serve_app.deployments.queues import ModelQueue
from serve_app.deployments.replica_actor import ReplicaActor
from serve_app.errors import Cancelled
from serve_app.requests.events import Progress, Queued

ANSWER_SECONDS = 0.5


@dataclass(frozen=True)
class RunsIn:
    """An image of a task runs in this replica of the model."""

    model: str
    unique_id: str


Place = Queued | RunsIn


class Askable(Protocol):
    """The other ingress replicas."""

    async def ask(self, method: str, *args: Any) -> list[Any]:
        """What a method of the ingress returns there."""
        ...


class TaskCalls:
    """Answers for the requests of this ingress replica, and asks the others for theirs.

    Methods with `_here` concern this ingress replica alone. Other ingress replicas call them, from another thread.

    Args:
        queues: the queue of each model.
        peers: the other ingress replicas.
    """

    def __init__(self, queues: Mapping[str, ModelQueue], peers: Askable) -> None:
        self._queues = queues
        self._peers = peers
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Call it on the event loop that the queues use."""
        self._loop = asyncio.get_running_loop()

    async def cancel(self, task: str, owner: str) -> int:
        """End all images of an owner's task. Returns how many that were."""
        return self.stop_here(task, owner) + sum(await self._peers.ask("stop_here", task, owner))

    async def interrupt(self, task: str, owner: str) -> int:
        """End the images that wait, and let those that run end with their next step. Returns how many that were."""
        stopped = self.stop_here(task, owner, True)
        places = self.find_here(task, owner)
        stopped += sum(await self._peers.ask("stop_here", task, owner, True))
        found = [*places, *chain.from_iterable(await self._peers.ask("find_here", task, owner))]
        return stopped + sum(await self._ask_replicas(found, lambda actor, _: actor.interrupt(task, owner)))

    async def progress_of(
        self, task: str, owner: str, shows_preview: Callable[[str], bool]
    ) -> list[tuple[str, Queued | Progress]]:
        """How far each part of the task is, with its model. `shows_preview` tells for which models one is rendered."""
        places = [*self.find_here(task, owner), *chain.from_iterable(await self._peers.ask("find_here", task, owner))]
        waiting: list[tuple[str, Queued | Progress]] = [("", one) for one in places if isinstance(one, Queued)]

        async def ask(actor: ReplicaActor, model: str) -> tuple[str, Queued | Progress | None]:
            return model, await actor.progress_of(task, owner, shows_preview(model))

        running = await self._ask_replicas(places, ask)
        return [*waiting, *((model, found) for model, found in running if found is not None)]

    def stop_here(self, task: str, owner: str, only_waiting: bool = False) -> int:
        """End the images of this ingress replica; with `only_waiting`, those that no replica has."""
        found = [run for queue in self._queues.values() for run in queue.find(task, owner, only_waiting)]
        if found and self._loop is not None:
            self._loop.call_soon_threadsafe(stop_all, found)
        return len(found)

    def find_here(self, task: str, owner: str) -> list[Place]:
        """Where the images of this ingress replica are."""
        places: list[Place] = []
        for model, queue in self._queues.items():
            for run in queue.find(task, owner):
                given = run.given
                places.append(RunsIn(model, given.view.unique_id) if given else queue.position_of(run))
        return places

    async def _ask_replicas(self, places: list[Place], ask: Callable[[ReplicaActor, str], Awaitable[Any]]) -> list[Any]:
        """The answer of each replica in which an image runs. Who does not answer is left out."""

        async def ask_one(place: RunsIn) -> Any:
            actor = self._queues[place.model].fleet.actor_of(place.unique_id)
            if actor is None:
                raise ValueError("the replica has gone")
            async with asyncio.timeout(ANSWER_SECONDS):
                return await ask(actor, place.model)

        running = dict.fromkeys(place for place in places if isinstance(place, RunsIn))
        answers = await asyncio.gather(*map(ask_one, running), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, RayError | TimeoutError | ValueError):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]


def stop_all(runs: list[ImageRun]) -> None:
    """End these images, on their event loop."""
    for run in runs:
        run.abort(Cancelled("stopped by its owner"))
