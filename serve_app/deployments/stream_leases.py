"""What runs in a replica for which ingress replica, and until when: the images of a dead one are orphans."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from serve_app.deployments.policies.replica_choice import MAX_BATCHES
from serve_app.errors import Draining, ReplicaFull
from serve_app.requests.events import ReplicaLoad, ResumePoint

LEASE_SECONDS = 5.0
"""The streams of an ingress replica that has not sent a heartbeat for so long are ended."""
RESERVED_SECONDS = 5.0
"""How long a request that must run alone is waited for, once it was refused because others ran."""
TOLD_SECONDS = 0.5
"""What joins a suspect might end this process before its ingress has heard of its resume point, and take that along."""
LOOK_SECONDS = 0.5
"""How often leases are looked at."""


@dataclass(eq=False)
class Stream:
    """One image in flight: whose it is, its `share` of a batch, and how to end it.

    One that is `resumed` needs no room. Nothing else begins while a `suspect` runs, until it has `told` a resume point.
    Nothing else runs with one that must be `alone`.
    """

    ingress: str
    share: float
    resumed: bool = False
    suspect: bool = False
    alone: bool = False
    told: float | None = None
    end: Callable[[], object] = bool


class StreamLeases:
    """The streams of one replica. It refuses those for which there is no room. Any thread may call it.

    Args:
        clock: seconds that never go back.
        unread_share: batches of the images that run here and that no stream reads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, unread_share: Callable[[], float] = float) -> None:
        self._clock = clock
        self._unread_share = unread_share
        self._streams: dict[Stream, None] = {}
        self._renewed: dict[str, float] = {}
        self._queued: dict[str, float] = {}
        self._reserved_until = 0.0
        self.is_draining = False

    @property
    def batches(self) -> float:
        """Full batches in flight."""
        return self._unread_share() + sum(stream.share for stream in list(self._streams))

    @property
    def queued_s(self) -> float:
        """Seconds of device time that wait at all ingress replicas that are alive."""
        return sum(seconds for ingress, seconds in list(self._queued.items()) if not self._is_over(ingress))

    def complete(self, load: ReplicaLoad, ingress: str) -> ReplicaLoad:
        """What an ingress replica is told: the engine's load, and what the others have here and let wait."""
        queued = list(self._queued.items())
        others = [seconds for name, seconds in queued if name != ingress and seconds > 0 and not self._is_over(name)]
        return replace(load, batches=self.batches, others_waiting=len(others), others_queued_s=sum(others))

    @contextmanager
    def hold(self, stream: Stream, joins: bool = False) -> Iterator[None]:
        """While inside, the stream counts. One that `joins` another one's image needs no room.

        Raises:
            Draining: this replica is about to stop.
            ReplicaFull: there is no room, or another request must be alone.
        """
        if not joins:
            self._check(stream)
        self._streams[stream] = None
        self._renewed.setdefault(stream.ingress, self._clock())
        try:
            yield
        finally:
            del self._streams[stream]

    def _check(self, stream: Stream) -> None:
        now = self._clock()
        if self.is_draining:
            raise Draining("the replica is about to stop")
        is_empty = not self._streams and not self._unread_share()
        if stream.alone and not is_empty:
            self._reserved_until = now + RESERVED_SECONDS
            raise ReplicaFull("other requests run here, and this one must run alone")
        if any(self._is_watched(one, now) for one in list(self._streams)):
            raise ReplicaFull("a request runs here that nothing may join")
        if stream.alone:
            self._reserved_until = 0.0
            return
        if now < self._reserved_until:
            raise ReplicaFull("another request must run alone here")
        if not stream.resumed and not is_empty and self.batches + stream.share > MAX_BATCHES:
            raise ReplicaFull("the replica has as many requests as it can use")

    def note(self, stream: Stream, event: object) -> None:
        """A stream's event: after a resume point, others may join."""
        if isinstance(event, ResumePoint) and stream.told is None:
            stream.told = self._clock()

    def _is_watched(self, stream: Stream, now: float) -> bool:
        return stream.suspect and (stream.told is None or now - stream.told < TOLD_SECONDS)

    def renew(self, ingress: str, queued_s: float) -> None:
        """An ingress replica is alive."""
        self._renewed[ingress] = self._clock()
        self._queued[ingress] = queued_s

    def end_orphans(self) -> int:
        """End the streams whose ingress replica is silent. Returns how many."""
        orphans = [stream for stream in list(self._streams) if stream.ingress and self._is_over(stream.ingress)]
        for stream in orphans:
            stream.end()
        alive = {stream.ingress for stream in self._streams}
        for ingress in [name for name in list(self._renewed) if self._is_over(name) and name not in alive]:
            del self._renewed[ingress]
            self._queued.pop(ingress, None)
        return len(orphans)

    def _is_over(self, ingress: str) -> bool:
        return self._clock() - self._renewed.get(ingress, 0.0) > LEASE_SECONDS


async def watch_leases(leases: StreamLeases, on_end: Callable[[int], None]) -> None:
    """End orphans, for ever. `on_end` gets how many they were each time."""
    while True:
        began = time.monotonic()
        await asyncio.sleep(LOOK_SECONDS)
        if time.monotonic() - began < LEASE_SECONDS / 2:  # else this process stood still: heartbeats wait to be read
            on_end(leases.end_orphans())
