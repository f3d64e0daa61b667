"""The replicas of one model, as one ingress replica sees them come and go."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from ray.exceptions import RayError

from serve_app.deployments.lost_work import LossReason
from serve_app.deployments.policies.replica_choice import ReplicaView
from serve_app.deployments.queue_metrics import QueueMetrics
from serve_app.deployments.replica_actor import ReplicaActor
from serve_app.deployments.replica_sets import REPLICA_SETS, ReplicaAddress
from serve_app.deployments.replica_watch import ReplicaWatch
from serve_app.requests.events import ReplicaLoad
from serve_app.requests.step_curve import StepCurve

ASK_SECONDS = 0.5
LIVE_SECONDS = 5.0
"""A replica that has sent no heartbeat for so long does not count as up."""


class ReplicaFleet:
    """Watches every replica that Serve routes to, and those that are about to stop until their images have ended.

    Args:
        ingress: the name under which replicas know this ingress replica.
        queued_s: the seconds of device time that wait here for the model.
        on_change: called when a replica may have room.
        on_end: called with a view and a reason when a replica is dead.
        metrics: of the model's queue.
    """

    def __init__(
        self,
        ingress: str,
        queued_s: Callable[[], float],
        on_change: Callable[[], None],
        on_end: Callable[[ReplicaView, LossReason], None],
        metrics: QueueMetrics,
    ) -> None:
        self.curve: StepCurve | None = None
        self._ingress = ingress
        self._queued_s = queued_s
        self._on_change = on_change
        self._on_end = on_end
        self._metrics = metrics
        self._watches: dict[str, ReplicaWatch] = {}
        self._ended: set[str] = set()
        self._present: frozenset[ReplicaAddress] = frozenset()
        self._draining_nodes: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, deployment: str) -> None:
        """Follow the set of Serve's router. Call it on the event loop."""
        loop = asyncio.get_running_loop()
        REPLICA_SETS.follow(deployment, lambda found: call_on_loop(loop, partial(self.update, found)))

    @property
    def views(self) -> list[ReplicaView]:
        """The replicas that may get requests."""
        return [watch.view for watch in self._watches.values() if not watch.view.is_leaving]

    @property
    def is_up(self) -> bool:
        """Whether a replica that may get requests has answered lately."""
        since = asyncio.get_running_loop().time() - LIVE_SECONDS
        return any(view.load is not None and view.told_at >= since for view in self.views)

    async def ask_each(self, method: str, *args: Any) -> Mapping[str, Any]:
        """What a method returns in each replica, by its unique id. It must not wait.

        Who does not answer in time is left out.
        """

        async def ask(actor: ReplicaActor) -> Any:
            async with asyncio.timeout(ASK_SECONDS):
                return await actor.call(method, *args)

        actors = self.actors
        answers = await asyncio.gather(*map(ask, actors.values()), return_exceptions=True)
        found = zip(actors, answers, strict=True)
        return {name: answer for name, answer in found if not isinstance(answer, BaseException)}

    def actor_of(self, unique_id: str) -> ReplicaActor | None:
        """The replica's actor; None where it is dead, or not known yet."""
        watch = self._watches.get(unique_id)
        return watch.actor if watch is not None else None

    @property
    def actors(self) -> Mapping[str, ReplicaActor]:
        """Every replica that answers, those that are about to stop as well, by its unique id."""
        return {name: watch.actor for name, watch in self._watches.items() if watch.actor is not None}

    def view_of(self, unique_id: str | None) -> ReplicaView | None:
        """What is known of a replica that is alive."""
        watch = self._watches.get(unique_id or "")
        return watch.view if watch is not None else None

    def drop(self, unique_id: str, key: str) -> None:
        """Tell a replica that nobody here wants the image with this key any more: its stream ends for this reason."""
        actor = self.actor_of(unique_id)
        if actor is not None:
            # Serve cancels the calls that were made for a request when its caller hangs up: this is nobody's.
            self._keep(asyncio.get_running_loop().create_task(drop_image(actor, key), context=Context()))

    def update(self, found: frozenset[ReplicaAddress]) -> None:
        """Serve's router has this set from now on."""
        for address in found:
            if address.unique_id not in self._watches and address.unique_id not in self._ended:
                self._watches[address.unique_id] = ReplicaWatch(
                    address,
                    self._ingress,
                    self._queued_s,
                    on_load=self._note_load,
                    on_end=self._note_end,
                    on_hand_over=self._metrics.note_hand_over,
                )
        self._present = found
        # A router may tell a dead replica once more, but not after it has left the set.
        self._ended &= {address.unique_id for address in found}
        self._empty_leaving()
        self._on_change()

    def leave_nodes(self, draining: frozenset[str]) -> None:
        """These nodes are about to be drained. Replicas there are used only where there is no other one."""
        self._draining_nodes = draining
        self._empty_leaving()
        self._on_change()

    def _find_staying(self) -> set[str]:
        """The replicas that may get requests: those on nodes that stay, once as many are there as have to leave.

        Until then, all that Serve routes to and that have not handed their images over.
        """
        present = {one.unique_id for one in self._present}
        lasting = {one.unique_id for one in self._present if one.node_id not in self._draining_nodes}
        ready = [name for name in lasting if (watch := self._watches.get(name)) and watch.view.load is not None]
        if len(ready) >= len(present - lasting):
            return lasting
        return {name for name in present if not ((watch := self._watches.get(name)) and watch.is_handing_over)}

    async def is_alive(self, view: ReplicaView) -> bool:
        """Whether the replica answers now."""
        watch = self._watches.get(view.unique_id)
        return watch is not None and await watch.is_alive()

    def end(self, view: ReplicaView, reason: LossReason) -> None:
        """Make sure that a replica is dead."""
        watch = self._watches.get(view.unique_id)
        if watch is not None:
            watch.end(reason)

    def _note_load(self, view: ReplicaView, load: ReplicaLoad) -> None:
        view.note_load(load, asyncio.get_running_loop().time())
        self.curve = load.curve
        self._empty_leaving()
        self._on_change()

    def _note_end(self, view: ReplicaView, reason: LossReason) -> None:
        self._watches.pop(view.unique_id, None)
        self._ended.add(view.unique_id)
        self._metrics.note_end(reason)
        self._on_end(view, reason)

    def _empty_leaving(self) -> None:
        """Move what runs in replicas that are about to stop, if there is another one; forget those that are empty."""
        staying, present = self._find_staying(), {one.unique_id for one in self._present}
        for name, watch in list(self._watches.items()):
            watch.view.is_leaving = name not in staying
            if name in staying:
                continue
            if not watch.view.running:
                if name not in present:
                    watch.stop()
                    del self._watches[name]
            elif not watch.is_handing_over and (self._has_loads() or not watch.view.is_draining):
                task = asyncio.create_task(watch.leave(hand_over=self._has_loads()))
                self._keep(task)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _has_loads(self) -> bool:
        return any(view.load is not None for view in self.views)


async def drop_image(actor: ReplicaActor, key: str) -> None:
    """See `ReplicaFleet.drop`. Where the call is lost, the image ends with the lease."""
    with suppress(RayError):
        await actor.call("drop_image", key)


def call_on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call it on the loop, from any thread; do nothing where the loop is closed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
