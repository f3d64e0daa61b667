"""The queues of all models at one ingress replica."""

import asyncio
from collections.abc import Mapping
from typing import Any

from serve_app.config import IngressConfig
from serve_app.config.names import deployment_of
from serve_app.deployments.draining_nodes import DrainingNodes
from serve_app.deployments.queue_metrics import QueueMetrics
from serve_app.deployments.queues import ModelQueue
from serve_app.deployments.replica_fleet import ReplicaFleet


class ModelQueues:
    """One queue for each model, `by_model`.

    Args:
        handles: the models' deployment handles.
        ingress: the name under which replicas know this ingress replica.
    """

    def __init__(self, handles: Mapping[str, Any], ingress: str) -> None:
        self.by_model = {
            model: ModelQueue(handle.options(stream=True), ingress, metrics=QueueMetrics(model))
            for model, handle in handles.items()
        }
        self._nodes = DrainingNodes(self._leave_nodes)

    def use(self, config: IngressConfig) -> None:
        """Use these settings, and follow Serve's replicas from now on. Call it on the event loop."""
        for model, queue in self.by_model.items():
            queue.use(config.settings_of(model))
            queue.fleet.follow(deployment_of(model))
        self._nodes.start()

    @property
    def fleets(self) -> Mapping[str, ReplicaFleet]:
        """The replicas of each model."""
        return {model: queue.fleet for model, queue in self.by_model.items()}

    async def ask_replicas(self, method: str) -> list[Any]:
        """What a method returns in each replica of each model. It must not wait."""
        told = await asyncio.gather(*(fleet.ask_each(method) for fleet in self.fleets.values()))
        return [answer for answers in told for answer in answers.values()]

    def _leave_nodes(self, draining: frozenset[str]) -> None:
        for queue in self.by_model.values():
            queue.fleet.leave_nodes(draining)
