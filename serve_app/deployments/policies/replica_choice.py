"""Which replica takes the next request: one that has room, the least work first."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from serve_app.deployments.policies.waiting_queue import QueueEntry
from serve_app.requests.events import ReplicaLoad

FULL_BATCHES = 2.0
"""What a replica can use: one batch in its steps, and one whose rows take turns with it or join when others end."""
FULL_SECONDS = 0.25
"""How long a replica that refused is left alone."""


@dataclass(eq=False)
class ReplicaView:
    """One replica as this ingress knows it: its last `load`, told at `told_at`, and what it was given since.

    `running` are this ingress' requests there with their batch shares; `given_s` is the work given since `told_at`.
    `own_batches` is this ingress' part of the told `load.batches`. `is_leaving`: Serve no longer routes to it.
    `is_draining`: it is about to stop, and answered since.
    """

    unique_id: str
    load: ReplicaLoad | None = None
    told_at: float = 0.0
    running: dict[QueueEntry, float] = field(default_factory=dict)
    alone: QueueEntry | None = None
    given_s: float = 0.0
    own_batches: float = 0.0
    full_until: float = 0.0
    is_leaving: bool = False
    is_draining: bool = False

    def note_load(self, load: ReplicaLoad, now: float) -> None:
        """A heartbeat's answer."""
        self.load, self.told_at, self.given_s = load, now, 0.0
        self.own_batches = sum(self.running.values())

    @property
    def batches(self) -> float:
        """Batches in flight there: our own as of now, those of other ingress replicas as last told."""
        others = max(0.0, self.load.batches - self.own_batches) if self.load is not None else 0.0
        return sum(self.running.values()) + others

    def work_s(self, now: float) -> float:
        """Seconds of device time that it still has to do."""
        told = max(0.0, self.load.work_s - (now - self.told_at)) if self.load is not None else 0.0
        return told + self.given_s

    def take(self, entry: QueueEntry, share: float, alone: bool) -> None:
        """Give it a request that takes `share` of a batch."""
        self.running[entry] = share
        self.given_s += entry.cost_s
        self.alone = entry if alone else self.alone

    def give_back(self, entry: QueueEntry) -> None:
        """A request has ended there."""
        self.running.pop(entry, None)
        if self.alone is entry:
            self.alone = None

    def has_room(self, share: float, now: float) -> bool:
        """Whether it can use another request. An idle one takes any."""
        if self.is_leaving or self.load is None or now < self.full_until or self.alone is not None:
            return False
        batches = self.batches
        return batches == 0.0 or batches + share <= FULL_BATCHES


def choose_replica(
    views: Iterable[ReplicaView], share: Callable[[ReplicaView], float], now: float
) -> ReplicaView | None:
    """The replica with the least work of those that have room for `share` of their batch; None where none has."""
    able = [view for view in views if view.has_room(share(view), now)]
    return min(able, key=lambda view: (view.work_s(now), view.batches, view.unique_id), default=None)


def choose_empty_replica(views: Iterable[ReplicaView], now: float) -> tuple[ReplicaView | None, bool]:
    """Where a suspect runs alone: the replica that is empty soonest, and whether it is empty now.

    Nothing else should be given to it meanwhile.
    """
    able = [view for view in views if not view.is_leaving and view.load is not None and view.alone is None]
    chosen = min(able, key=lambda view: (bool(view.running), view.work_s(now), view.unique_id), default=None)
    return chosen, chosen is not None and not chosen.running and now >= chosen.full_until
