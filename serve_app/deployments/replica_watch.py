"""Watches one replica: a heartbeat a second, and what follows where it is silent, hangs, dies or is about to stop."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from serve_app.deployments.lost_work import LossReason
from serve_app.deployments.policies.replica_choice import ReplicaView, rank_of
from serve_app.deployments.replica_actor import ReplicaActor
from serve_app.deployments.replica_sets import ReplicaAddress
from serve_app.requests.events import ReplicaLoad

BEAT_SECONDS = 1.0
SILENT_SECONDS = 10.0
"""A replica whose process does not answer for so long is killed."""
ASK_SECONDS = 2.0
LATE_SECONDS = 1.0
"""An event loop that is so late has not heard answers that came in time. It asks again."""
UNAVAILABLE_SECONDS = 0.1

log = logging.getLogger("darkroom.ingress")


class ReplicaWatch:
    """One replica and its watcher. `view` is what policies know of it.

    Args:
        address: the replica's.
        ingress: the name under which the replica knows this ingress replica.
        queued_s: the seconds of device time that wait here for its model.
        on_load: called after each answer.
        on_end: called once, when the replica has died or was killed.
        on_hand_over: called when the replica has handed its images over.
    """

    def __init__(
        self,
        address: ReplicaAddress,
        ingress: str,
        queued_s: Callable[[], float],
        on_load: Callable[[ReplicaView, ReplicaLoad], None],
        on_end: Callable[[ReplicaView, LossReason], None],
        on_hand_over: Callable[[], None],
    ) -> None:
        self.view = ReplicaView(address.unique_id, rank=rank_of(ingress, address.unique_id))
        self._address = address
        self._ingress = ingress
        self._queued_s = queued_s
        self._on_load = on_load
        self._on_end = on_end
        self._on_hand_over = on_hand_over
        self._actor: ReplicaActor | None = None
        self.is_handing_over = False
        self._has_ended = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._give_up)

    def stop(self) -> None:
        """Watch it no longer."""
        self._task.cancel()

    def end(self, reason: LossReason, detail: str = "") -> None:
        """The replica is of no use: make sure that it is dead, and say so. Only the first call counts."""
        if self._has_ended:
            return
        self._has_ended = True
        self._task.cancel()
        log.warning("replica %s is given up: %s", self._address.unique_id, detail or reason)
        if self._actor is not None:
            with suppress(RayError):
                self._actor.kill()
        self._on_end(self.view, reason)

    async def is_alive(self) -> bool:
        """Ask it now. A replica that does not answer soon counts as dead."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    await self._beat()
                return True
            except TimeoutError:
                if loop.time() - began < ASK_SECONDS + LATE_SECONDS:
                    return False
                began = loop.time()
            except (RayError, ValueError) as error:
                if not isinstance(error, ActorUnavailableError) or loop.time() - began > ASK_SECONDS:
                    return False
                await asyncio.sleep(UNAVAILABLE_SECONDS)

    async def leave(self, hand_over: bool) -> None:
        """Serve no longer routes to it: it is dead, or about to stop and may hand its images over."""
        if self.is_handing_over:
            return
        self.is_handing_over = hand_over
        if not await self.is_alive():
            self.end("left", "it left the set of replicas and does not answer")
            return
        self.view.is_draining = True
        if hand_over and self._actor is not None:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    await self._actor.hand_over()
                self._on_hand_over()
            except (TimeoutError, RayError) as error:
                log.warning("replica %s does not hand over: %s", self._address.unique_id, type(error).__name__)
                self.is_handing_over = False  # the next heartbeat's answer tries again

    @property
    def actor(self) -> ReplicaActor | None:
        """For calls about a task; None before the first heartbeat."""
        return self._actor

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while True:
            asked = loop.time()
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    await self._beat()
                answered = loop.time()
            except (TimeoutError, RayError, ValueError) as error:
                if is_death(error):
                    return self.end("died", type(error).__name__)
                log.warning("heartbeat of replica %s: %s", self._address.unique_id, error_name(error))
                is_late = loop.time() - asked > SILENT_SECONDS + LATE_SECONDS
                if self._actor is None or is_late:
                    answered = loop.time()  # Ray's head, or this process, was slow
                elif loop.time() - answered >= SILENT_SECONDS:
                    return self.end("silent", f"no heartbeat for {SILENT_SECONDS:g} s")
            load = self.view.load
            if load is not None and load.step_age_s > load.step_limit_s:
                return self.end("hung_step", f"a step hangs, {load.step_age_s:.0f} s old")
            await asyncio.sleep(BEAT_SECONDS)

    def _give_up(self, task: "asyncio.Task[None]") -> None:
        """No replica stays unwatched, also where this class has a mistake."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("the watcher of replica %s failed", self._address.unique_id, exc_info=error)
            self.end("silent", f"its watcher failed ({type(error).__name__})")

    async def _beat(self) -> None:
        if self._actor is None:
            self._actor = await ReplicaActor.find(self._address.actor_name)
        self.view.note_asked()
        load = await self._actor.heartbeat(self._ingress, self._queued_s())
        self._on_load(self.view, load)


def is_death(error: Exception) -> bool:
    """Whether a heartbeat's error means that there is no such process any more."""
    return isinstance(error, RayActorError | ValueError) and not isinstance(error, ActorUnavailableError)


def error_name(error: Exception) -> str:
    """For the log. The text of an error that nobody expected may hold what was sent."""
    return type(error.cause if isinstance(error, RayTaskError) else error).__name__
