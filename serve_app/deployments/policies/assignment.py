"""Which waiting request goes to which replica now."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from serve_app.deployments.policies.replica_choice import ReplicaView, choose_empty_replica, choose_replica
from serve_app.deployments.policies.waiting_queue import QueueEntry


@dataclass(frozen=True)
class Assignment:
    """`view`'s replica takes the request, which is `share` of a batch there; alone if it is suspect."""

    view: ReplicaView
    share: float
    alone: bool


def assign(
    ordered: Iterable[QueueEntry],
    views: Iterable[ReplicaView],
    share: Callable[[QueueEntry, ReplicaView], float],
    is_suspect: Callable[[QueueEntry], bool],
    now: float,
) -> Iterator[tuple[QueueEntry, Assignment]]:
    """Give what waits, in this order, to replicas that can use it, and count it there.

    A request for which no replica has room stops all behind it, so that small ones do not pass a large one for ever. A
    suspect waits for an empty replica, which gets nothing else meanwhile; the other replicas go on.
    """
    able = list(views)
    for entry in ordered:
        if is_suspect(entry):
            view, is_empty = choose_empty_replica(able, now)
            if view is not None:
                able.remove(view)
            if view is None or not is_empty:
                continue
        else:
            view = choose_replica(able, partial(share, entry), now)
            if view is None:
                return
        part = share(entry, view)
        given = Assignment(view, part, is_suspect(entry))
        view.take(entry, part, given.alone)
        yield entry, given
