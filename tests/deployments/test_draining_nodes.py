"""Which nodes are about to be drained, as the head tells it."""

import asyncio

import pytest
from ray.exceptions import RaySystemError

from serve_app.deployments import draining_nodes
from serve_app.deployments.draining_nodes import DrainingNodes, Nodes


def test_each_change_is_told_once_and_an_absent_head_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining_nodes, "PERIOD_SECONDS", 0.001)
    answers: list[Nodes | None] = [frozenset(), frozenset("a"), None, frozenset("a"), frozenset()]
    told: list[Nodes] = []

    def find() -> Nodes:
        answer = answers.pop(0) if answers else frozenset()
        if answer is None:
            raise RaySystemError("the head is away")
        return answer

    async def watch() -> None:
        nodes = DrainingNodes(told.append, find)
        nodes.start()
        nodes.start()
        async with asyncio.timeout(20):
            while answers:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)

    asyncio.run(watch())
    assert told == [frozenset("a"), frozenset()]
