"""Which waiting request goes to which replica now."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from serve_app.deployments.policies.replica_choice import (
    ReplicaView,
    choose_empty,
    choose_for_resumed,
    choose_replica,
)
from serve_app.deployments.policies.suspicion import Suspicion
from serve_app.deployments.policies.waiting_queue import QueueEntry


@dataclass(frozen=True)
class Assignment:
    """`view`'s replica takes the request.

    `is_suspect`: nothing else begins there until its resume point. `alone`: nothing else runs there at all.
    """

    view: ReplicaView
    is_suspect: bool
    alone: bool


def assign(
    ordered: Iterable[QueueEntry],
    views: Iterable[ReplicaView],
    share: Callable[[QueueEntry, ReplicaView], float],
    suspicion: Callable[[QueueEntry], Suspicion],
    now: float,
) -> Iterator[tuple[QueueEntry, Assignment]]:
    """Give what waits, in this order, to replicas that can use it, and count it there.

    A request for which no replica has room stops all behind it, so that small ones do not pass a large one for ever.
    Resumed requests need no room. One that must be alone waits for an empty replica, which gets nothing else
    meanwhile; the other replicas go on.
    """
    able = list(views)
    for entry in sorted(ordered, key=lambda entry: not suspicion(entry).must_be_alone):
        suspected = suspicion(entry)
        if suspected.must_be_alone:
            view, is_empty = choose_empty(able, now)
            if view is not None:
                able.remove(view)
            if view is None or not is_empty:
                continue
        elif entry.is_resumed:
            view = choose_for_resumed(able, suspected.is_suspect, now)
            if view is None:
                continue
        else:
            view = choose_replica(able, partial(share, entry), now)
            if view is None:
                return
        view.take(entry, share(entry, view), suspected.is_suspect)
        yield entry, Assignment(view, suspected.is_suspect, suspected.must_be_alone)


def assign_running(entry: QueueEntry, view: ReplicaView, share: float) -> Assignment:
    """Count a request at the replica that draws it already. It takes `share` of a batch, room or not."""
    entry.is_resumed = True
    view.take(entry, share, is_suspect=False)
    return Assignment(view, is_suspect=False, alone=False)
