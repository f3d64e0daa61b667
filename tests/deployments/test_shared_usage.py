"""An ingress' side of the counting, over an actor that the test slows down, kills and revives. No Ray."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from serve_app.api.usage_ledger import Lease, UsageLedger, UsageReport
from serve_app.config import CallerLimits
from serve_app.deployments.shared_usage import SharedUsage, UsageConnection
from serve_app.deployments.usage_reporter import UsageReporter
from serve_app.errors import LimitExceeded

LIMITS = CallerLimits(rate=0.001, burst=4, concurrency=4)


class FakeActor:
    """The actor's methods over a ledger, called as those of an actor are."""

    def __init__(self) -> None:
        self.ledger = UsageLedger()
        self.is_dead = False
        self.delay_s = 0.0
        self.reports: list[UsageReport] = []

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any) -> Coroutine[Any, Any, None]:
            return self.call(name, *args)

        return SimpleNamespace(remote=remote)

    async def call(self, name: str, *args: Any) -> None:
        if self.is_dead:
            raise ActorUnavailableError("away", None)
        if name == "report":
            self.reports.append(args[0])
            self.ledger.take_report(args[0])
        else:
            getattr(self.ledger, name)(*args)
        await asyncio.sleep(self.delay_s)


def lease(usage: SharedUsage, name: str, images: int = 1) -> Lease:
    return Lease(name, usage.holder, "bob", images, LIMITS)


def run(test: Callable[[FakeActor, SharedUsage, SharedUsage], Coroutine[Any, Any, None]]) -> None:
    """Run a test over two ingress replicas."""

    async def start() -> None:
        actor = FakeActor()
        one, two = (SharedUsage(UsageConnection(lambda: actor), lambda: 2) for _ in range(2))
        await one.start()
        await two.start()
        await test(actor, one, two)

    asyncio.run(start())


def test_two_ingresses_share_one_limit() -> None:
    async def test(actor: FakeActor, one: SharedUsage, two: SharedUsage) -> None:
        await one.admit(lease(one, "a", 2))
        await two.admit(lease(two, "b", 2))
        for usage in (one, two):
            with pytest.raises(LimitExceeded, match="at most 4 images"):
                await usage.admit(lease(usage, "c"))
        await two.end(lease(two, "b", 2))
        await one.admit(lease(one, "c"))

    run(test)


def test_without_the_actor_each_admits_its_half_and_says_so_afterwards() -> None:
    async def test(actor: FakeActor, one: SharedUsage, two: SharedUsage) -> None:
        actor.is_dead = True
        for usage in (one, two):
            await usage.admit(lease(usage, f"a-{usage.holder}"))
            await usage.admit(lease(usage, f"b-{usage.holder}"))
            with pytest.raises(LimitExceeded, match="at most 2 images"):
                await usage.admit(lease(usage, f"c-{usage.holder}"))
        actor.ledger, actor.is_dead = UsageLedger(), False
        await asyncio.sleep(1.3)
        assert not one.is_away
        with pytest.raises(LimitExceeded, match="at most 4 images"):
            await one.admit(lease(one, "d"))
        for usage in (one, two):
            for name in "ab":
                await usage.end(lease(usage, f"{name}-{usage.holder}"))
        with pytest.raises(LimitExceeded, match="requests per second"):
            await one.admit(lease(one, "d"))

    run(test)


def test_a_slow_actor_holds_a_request_up_for_a_second_and_only_once() -> None:
    async def test(actor: FakeActor, one: SharedUsage, two: SharedUsage) -> None:
        actor.delay_s = 30
        began = time.monotonic()
        await one.admit(lease(one, "a"))
        assert time.monotonic() - began < 3
        began = time.monotonic()
        await one.end(lease(one, "a"))
        await one.admit(lease(one, "b"))
        assert time.monotonic() - began < 1
        usage = actor.ledger.usage_of("bob")
        assert usage is not None
        assert set(usage.leases) == {"a"}, "it has heard of a"
        actor.delay_s = 0
        await asyncio.sleep(2.5)
        assert set(usage.leases) == {"b"}, "the next report tells what is true"

    run(test)


def test_device_seconds_wait_for_the_actor_and_arrive_once() -> None:
    async def test() -> None:
        actor = FakeActor()
        spent: list[dict[str, float]] = [{"bob": 1.5}]
        reporter = UsageReporter(UsageConnection(lambda: actor), lambda: spent.pop() if spent else {})
        actor.is_dead = True
        reporter.start()
        await asyncio.sleep(1.2)
        assert spent == [], "taken from the engine"
        spent.append({"bob": 2.5})
        actor.is_dead = False
        await asyncio.sleep(2.2)
        usage = actor.ledger.usage_of("bob")
        assert usage is not None
        assert sum(seconds for _, seconds in usage.spent) == 4.0
        assert [report.number for report in actor.reports] == [1, 2]

    asyncio.run(test())
