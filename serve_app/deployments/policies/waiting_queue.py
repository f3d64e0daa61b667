"""The order in which waiting requests go to replicas: resumed first, then by class, fair between owners."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

AGING_SECONDS = 60.0
"""A request of the class `batch` that has waited for so long counts as interactive."""
PATIENCE = 3.0
"""An owner's own requests go by their arrival plus so many times what they cost: short ones pass long ones."""


@dataclass(eq=False, kw_only=True)
class QueueEntry:
    """One image that waits, or that was taken and may come back.

    `owner` shares fairly with other owners. `cost_s` is its device time in seconds. `is_batch` is its class.
    `is_resumed`: a replica had taken it. `start_tag` is where its owner's share begins, in seconds of device time.
    """

    task: str = ""
    owner: str = ""
    cost_s: float = 0.0
    is_batch: bool = False
    arrived: float = 0.0
    is_resumed: bool = False
    start_tag: float = 0.0


class WaitingQueue:
    """Requests of one model that wait at one ingress replica.

    Between owners it is start-time fair queueing (Goyal, Vin, Cheng 1996): each request gets a tag, the device seconds
    that its owner has been given before it, and the lowest tag goes first. An owner that comes back after a while
    begins at the present tag: nothing is saved up.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[QueueEntry, None] = {}
        self._present = 0.0
        self._finish_tags: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[QueueEntry]:
        return iter(self._entries)

    def __contains__(self, entry: QueueEntry) -> bool:
        return entry in self._entries

    def join(self, entry: QueueEntry) -> None:
        """A new request waits."""
        entry.start_tag = max(self._present, self._finish_tags.get(entry.owner, 0.0))
        self._finish_tags[entry.owner] = entry.start_tag + entry.cost_s
        self._entries[entry] = None

    def come_back(self, entry: QueueEntry) -> None:
        """A request that was taken waits again. It keeps its tag, and goes before all that were never taken."""
        entry.is_resumed = True
        self._entries[entry] = None

    def leave(self, entry: QueueEntry) -> None:
        """A request no longer waits: it was taken, or its caller has gone."""
        self._entries.pop(entry, None)

    def take(self, entry: QueueEntry) -> None:
        """A replica takes a request."""
        self.leave(entry)
        self._present = max(self._present, entry.start_tag)
        if not self._entries:
            self._finish_tags = {owner: tag for owner, tag in self._finish_tags.items() if tag > self._present}

    def ordered(self) -> list[QueueEntry]:
        """All that wait, the next one first."""
        now = self._clock()
        return sorted(self._entries, key=lambda entry: self._rank(entry, now))

    def _rank(self, entry: QueueEntry, now: float) -> tuple[bool, bool, float, float]:
        waits_long = now - entry.arrived > AGING_SECONDS
        return (
            not entry.is_resumed,
            entry.is_batch and not waits_long,
            entry.start_tag if not entry.is_resumed else entry.arrived,
            entry.arrived + PATIENCE * entry.cost_s,
        )
