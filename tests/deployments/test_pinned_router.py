"""Serve's router for models: it pins, leaves no call without a replica, and tells which replicas there are."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import replica_sets
from serve_app.deployments.pinned_router import PinnedRouter
from serve_app.deployments.replica_sets import ReplicaAddress, ReplicaSets


def replica(name: str) -> Any:
    return SimpleNamespace(replica_id=SimpleNamespace(unique_id=name))


def choose(candidates: list[Any], **kwargs: Any) -> list[str]:
    router: Any = PinnedRouter.__new__(PinnedRouter)  # the rest of a router needs a cluster
    pending: Any = SimpleNamespace(kwargs=kwargs, routing_context=SimpleNamespace(should_backoff=False))
    ranks = asyncio.run(router.choose_replicas(candidates, pending))
    assert pending.routing_context.should_backoff, "a call that must wait does not turn in circles"
    return [one.replica_id.unique_id for rank in ranks for one in rank]


def test_a_call_goes_to_the_replica_that_was_chosen() -> None:
    replicas = [replica(name) for name in "abc"]
    assert all(choose(replicas, target=name) == [name] for name in "abc" for _ in range(10))


def test_a_call_whose_target_has_gone_goes_to_another_one_which_refuses_it() -> None:
    assert choose([replica("a")], target="gone") == ["a"]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_call_without_a_target_goes_to_one_of_two(number: int) -> None:
    replicas = [replica(str(index)) for index in range(number)]
    found = [choose(replicas) for _ in range(100)]
    assert {len(one) for one in found} == {min(2, number)}
    assert {name for one in found for name in one} == {str(index) for index in range(number)}


def test_whoever_follows_a_set_hears_it_at_once_and_at_each_change() -> None:
    sets, heard = ReplicaSets(), list[set[str]]()
    sets.tell("model-m", [ReplicaAddress("a", "actor of a")])
    sets.follow("model-m", lambda found: heard.append({one.unique_id for one in found}))
    sets.tell("model-other", [ReplicaAddress("x", "actor of x")])
    sets.tell("model-m", [])
    assert heard == [{"a"}, set()]


def test_the_router_tells_its_set(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ReplicaSets()
    monkeypatch.setattr(replica_sets, "REPLICA_SETS", sets)
    router: Any = PinnedRouter.__new__(PinnedRouter)
    router._deployment_id = SimpleNamespace(name="model-m")
    identity = type("Id", (), {"unique_id": "a", "to_full_id_str": lambda _: "actor of a"})()
    router._replicas = {identity: SimpleNamespace(node_id="n")}
    heard: list[Any] = []
    sets.follow("model-m", heard.append)
    router._tell()
    assert heard == [frozenset({ReplicaAddress("a", "actor of a", "n")})]
