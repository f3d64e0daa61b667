"""Serve's request router for models: it sends each call to the replica that the ingress chose."""

import random
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from serve_app.deployments import replica_sets


class PinnedRouter(RequestRouter):
    """Calls with the keyword `target`, a replica's unique id, go to that replica; others to the shorter of two queues.

    Where the target has gone, another replica gets the call, and refuses it: a call for which nothing is chosen would
    wait for ever.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """See `RequestRouter`."""
        target: Any = None
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
            target = pending_request.kwargs.get("target")
        pinned = [one for one in candidate_replicas if one.replica_id.unique_id == target]
        return [pinned or random.sample(candidate_replicas, min(2, len(candidate_replicas)))]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """See `RequestRouter`."""
        super().update_replicas(replicas)
        self._tell()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """See `RequestRouter`."""
        super().on_replica_actor_died(replica_id)
        self._tell()

    def _tell(self) -> None:
        found = [
            replica_sets.ReplicaAddress(replica_id.unique_id, replica_id.to_full_id_str(), replica.node_id or "")
            for replica_id, replica in self.curr_replicas.items()
        ]
        replica_sets.REPLICA_SETS.tell(self._deployment_id.name, found)
