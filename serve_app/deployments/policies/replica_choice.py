"""Which replica takes the next request: one that has room, the least work first."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from serve_app.deployments.policies.waiting_queue import QueueEntry
from serve_app.requests.events import ReplicaLoad

FULL_BATCHES = 2.0
"""What a replica can use: one batch in its steps, and one whose rows take turns with it or join when others end."""
MAX_BATCHES = 3.0
"""Beyond that a replica refuses: several ingress replicas may give at the same moment."""
FULL_SECONDS = 0.25
"""How long a replica that refused is left alone."""


@dataclass(eq=False)
class ReplicaView:
    """One replica as this ingress knows it: its last `load`, told at `told_at`, and what it was given since.

    `running` are this ingress' requests there with their batch shares; `given_s` is the work that `load` may lack.
    `own_batches` is this ingress' part of the told `load.batches`. While `suspect` runs there, nothing else begins.
    `is_proven`: a request has told a resume point there, or has ended.
    Of replicas with equal work, the one that was `taken` least often goes first, then the lowest `rank`.
    `is_leaving`: Serve no longer routes to it. `is_draining`: it is about to stop, and answered since.
    """

    unique_id: str
    load: ReplicaLoad | None = None
    told_at: float = 0.0
    running: dict[QueueEntry, float] = field(default_factory=dict)
    suspect: QueueEntry | None = None
    given_s: float = 0.0
    given_since_asked_s: float = 0.0
    own_batches: float = 0.0
    own_batches_asked: float = 0.0
    full_until: float = 0.0
    taken: int = 0
    rank: int = 0
    is_proven: bool = False
    is_leaving: bool = False
    is_draining: bool = False

    def note_asked(self) -> None:
        """A heartbeat is on its way. The answer may lack what is given from now on."""
        self.given_since_asked_s = 0.0
        self.own_batches_asked = sum(self.running.values())

    def note_load(self, load: ReplicaLoad, now: float) -> None:
        """A heartbeat's answer."""
        self.load, self.told_at, self.given_s = load, now, self.given_since_asked_s
        self.own_batches = max(self.own_batches_asked, sum(self.running.values()))

    @property
    def batches(self) -> float:
        """Batches in flight there: our own as of now, those of other ingress replicas as last told."""
        others = max(0.0, self.load.batches - self.own_batches) if self.load is not None else 0.0
        return sum(self.running.values()) + others

    def work_s(self, now: float) -> float:
        """Seconds of device time that it still has to do."""
        told = max(0.0, self.load.work_s - (now - self.told_at)) if self.load is not None else 0.0
        return told + self.given_s

    @property
    def images(self) -> int:
        """In flight there, of all callers."""
        return max(len(self.running), self.load.images if self.load is not None else 0)

    def take(self, entry: QueueEntry, share: float, is_suspect: bool) -> None:
        """Give it a request that takes `share` of a batch."""
        self.running[entry] = share
        self.given_s += entry.cost_s
        self.given_since_asked_s += entry.cost_s
        self.taken += 1
        self.suspect = entry if is_suspect else self.suspect

    def give_back(self, entry: QueueEntry) -> None:
        """A request has ended there."""
        self.running.pop(entry, None)
        if self.suspect is entry:
            self.suspect = None

    def has_room(self, share: float, now: float) -> bool:
        """Whether it can use another request. An idle one takes any.

        Where requests wait at other ingress replicas too, each gives it an equal part of what it can use, or one
        request. Otherwise the one that has filled it would take every place that becomes free, being the first to know.
        """
        batches, own = self.batches, sum(self.running.values())
        if not self.may_begin(now) or self.load is None:
            return False
        if batches == 0.0:
            return True
        if self.load.others_waiting == 0:
            return batches + share <= FULL_BATCHES
        part = FULL_BATCHES / (1 + self.load.others_waiting)
        return (own == 0.0 or own + share <= part) and batches + share <= MAX_BATCHES

    def may_begin(self, now: float) -> bool:
        """Whether anything may begin there, room or not."""
        return not self.is_leaving and self.load is not None and now >= self.full_until and self.suspect is None


def rank_of(ingress: str, replica: str) -> int:
    """Each ingress replica ranks replicas in an order of its own, so that not all begin with the same one."""
    return zlib.crc32(f"{ingress} {replica}".encode())


def least_work(now: float, view: ReplicaView) -> tuple[float, float, int, int]:
    """The smallest is the one to choose."""
    return view.work_s(now), view.batches, view.taken, view.rank


def choose_replica(
    views: Iterable[ReplicaView], share: Callable[[ReplicaView], float], now: float
) -> ReplicaView | None:
    """The replica with the least work of those that have room for `share` of their batch; None where none has."""
    able = [view for view in views if view.has_room(share(view), now)]
    return min(able, key=partial(least_work, now), default=None)


def choose_for_resumed(views: Iterable[ReplicaView], is_suspect: bool, now: float) -> ReplicaView | None:
    """The replica with the least work, room or not: work that was lost goes on at once.

    A suspect waits for one that is proven, if there is one: a new replica on a broken device is always the emptiest.
    """
    known = [view for view in views if not view.is_leaving]
    proven = [view for view in known if view.is_proven]
    able = [view for view in (proven if is_suspect and proven else known) if view.may_begin(now)]
    return min(able, key=partial(least_work, now), default=None)


def choose_empty(views: Iterable[ReplicaView], now: float) -> tuple[ReplicaView | None, bool]:
    """The replica that is empty soonest, and whether it is empty now. Nothing else should be given to it meanwhile.

    One that is proven goes before.
    """
    able = [view for view in views if not view.is_leaving and view.load is not None]
    chosen = min(able, key=lambda view: (not view.is_proven, bool(view.running), *least_work(now, view)), default=None)
    return chosen, chosen is not None and not chosen.running and chosen.may_begin(now)
