"""The order in which waiting requests go to replicas: resumed first, then by class, fair between owners."""

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

AGING_SECONDS = 60.0
"""A request of the class `batch` that has waited for so long counts as interactive."""
PATIENCE = 3.0
"""An owner's own requests go by their arrival plus so many times what they cost: short ones pass long ones."""


@dataclass(eq=False, kw_only=True)
class QueueEntry:
    """One image that waits, or that was taken and may come back.

    `owner` shares fairly with other owners. `cost_s` is its device time in seconds. `is_batch` is its class.
    `is_resumed`: a replica had begun it. `modeled_wait_s` is `Estimate.modeled_s`, of the first image of a request.
    """

    task: str = ""
    owner: str = ""
    cost_s: float = 0.0
    is_batch: bool = False
    arrived: float = 0.0
    is_resumed: bool = False
    modeled_wait_s: float | None = None


class WaitingQueue:
    """Requests of one model that wait at one ingress replica.

    Between owners it is start-time fair queueing (Goyal, Vin, Cheng 1996): an owner's tag is the device seconds that it
    has been given, and the lowest tag goes first. An owner that comes back after a while begins at the present tag:
    nothing is saved up.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[QueueEntry, None] = {}
        self._present = 0.0
        self._tags: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[QueueEntry]:
        return iter(self._entries)

    def __contains__(self, entry: QueueEntry) -> bool:
        return entry in self._entries

    def join(self, entry: QueueEntry) -> None:
        """A new request waits."""
        self._entries[entry] = None

    def come_back(self, entry: QueueEntry) -> None:
        """A request that was taken waits again. It goes before all others if a replica had begun it."""
        self._entries[entry] = None
        if not entry.is_resumed:
            self._tags[entry.owner] = self._tag_of(entry.owner) - entry.cost_s

    def resume(self, entry: QueueEntry) -> None:
        """A request that was accepted before, elsewhere, goes before all others."""
        entry.is_resumed = True
        self._entries[entry] = None

    def leave(self, entry: QueueEntry) -> None:
        """A request no longer waits: it was taken, or its caller has gone."""
        self._entries.pop(entry, None)

    def take(self, entry: QueueEntry) -> None:
        """A replica takes a request. What was taken before has been counted."""
        self.leave(entry)
        if not entry.is_resumed:
            self._present = self._tag_of(entry.owner)
            self._tags[entry.owner] = self._present + entry.cost_s
        if not self._entries:
            self._tags = {owner: tag for owner, tag in self._tags.items() if tag > self._present}

    def ordered(self, joining: Iterable[QueueEntry] = ()) -> list[QueueEntry]:
        """All that wait, the next one first; and `joining`, as if they did."""
        now = self._clock()
        classes: tuple[list[QueueEntry], ...] = ([], [], [])
        for entry in (*self._entries, *joining):
            gives_way = entry.is_batch and now - entry.arrived <= AGING_SECONDS
            classes[0 if entry.is_resumed else 1 + gives_way].append(entry)
        resumed, first, last = classes
        given: dict[str, float] = {}
        resumed.sort(key=lambda entry: entry.arrived)
        return [*resumed, *self._fairly(first, given), *self._fairly(last, given)]

    def ahead_s(self, joining: QueueEntry) -> float:
        """Seconds of device time that would go before a request if it joined now."""
        ahead_s = 0.0
        for entry in self.ordered((joining,)):
            if entry is joining:
                break
            ahead_s += entry.cost_s
        return ahead_s

    def _tag_of(self, owner: str) -> float:
        return max(self._present, self._tags.get(owner, 0.0))

    def _fairly(self, entries: list[QueueEntry], given: dict[str, float]) -> Iterator[QueueEntry]:
        """One class in its order. `given` are the seconds that each owner gets with those that went before."""
        waiting: dict[str, list[QueueEntry]] = {}
        for entry in sorted(entries, key=lambda entry: entry.arrived + PATIENCE * entry.cost_s, reverse=True):
            waiting.setdefault(entry.owner, []).append(entry)
        heap = [(self._tag_of(owner) + given.get(owner, 0.0), place, owner) for place, owner in enumerate(waiting)]
        heapq.heapify(heap)
        while heap:
            tag, place, owner = heap[0]
            entry = waiting[owner].pop()
            given[owner] = given.get(owner, 0.0) + entry.cost_s
            if waiting[owner]:
                heapq.heapreplace(heap, (tag + entry.cost_s, place, owner))
            else:
                heapq.heappop(heap)
            yield entry
