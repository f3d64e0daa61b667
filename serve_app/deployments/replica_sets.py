"""The replicas that Serve routes to, as its routers in this process last heard.

Serve pickles a router's class by value, so what the router shares with the ingress must live in a module of its own.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ReplicaAddress:
    """`unique_id` within its deployment, the name of its Ray actor, and the id of its node."""

    unique_id: str
    actor_name: str
    node_id: str = ""


Listener = Callable[[frozenset[ReplicaAddress]], None]


class ReplicaSets:
    """Sets by deployment. Routers tell them from threads of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sets: dict[str, frozenset[ReplicaAddress]] = {}
        self._listeners: dict[str, Listener] = {}

    def tell(self, deployment: str, replicas: Iterable[ReplicaAddress]) -> None:
        """The deployment's set is this from now on."""
        with self._lock:
            found = self._sets[deployment] = frozenset(replicas)
            listener = self._listeners.get(deployment)
        if listener is not None:
            listener(found)

    def follow(self, deployment: str, listener: Listener) -> None:
        """Call `listener` with the set, now if it is known and at each change, from the router's thread."""
        with self._lock:
            self._listeners[deployment] = listener
            found = self._sets.get(deployment)
        if found is not None:
            listener(found)


REPLICA_SETS = ReplicaSets()
"""One for each process: Serve makes the routers, so that nothing can be handed to them."""
