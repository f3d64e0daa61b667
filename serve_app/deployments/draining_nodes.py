"""Nodes that are about to be drained: replicas there are left early, while there is time."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]  # it is compiled
from ray.exceptions import RayError

PERIOD_SECONDS = 2.0
TIMEOUT_SECONDS = 1.0

log = logging.getLogger("darkroom.ingress")
Nodes = frozenset[str]


class DrainingNodes:
    """Asks Ray's head which nodes are being drained, and tells each change.

    Serve itself stops a replica there once its successor runs, or once the node's deadline is nearer than the grace.

    Args:
        on_change: called on the event loop with the ids of the nodes.
        find: asks the head. It blocks.
    """

    def __init__(self, on_change: Callable[[Nodes], None], find: Callable[[], Nodes] | None = None) -> None:
        self._on_change = on_change
        self._find = find or find_draining_nodes
        self._known: Nodes = frozenset()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Ask from now on. Only the first call counts."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            # While the head is away, what it said last holds.
            with suppress(RayError):
                found = await asyncio.to_thread(self._find)
                if found != self._known:
                    log.info("nodes about to be drained: %s", ", ".join(sorted(found)) or "none")
                    self._known = found
                    self._on_change(found)
            await asyncio.sleep(PERIOD_SECONDS)


def find_draining_nodes() -> Nodes:
    """The ids of the nodes that are being drained. It blocks. Raises RayError where the head does not answer."""
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    return frozenset(client.get_draining_nodes(timeout=TIMEOUT_SECONDS))
