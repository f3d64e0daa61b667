"""Strange errors and long silences: no caller waits for ever, and nothing healthy is killed."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    LocalRayletDiedError,
    ObjectStoreFullError,
    RaySystemError,
    RayTaskError,
)

from serve_app.errors import Cancelled
from tests.deployments.conftest import AsyncTest, Make
from tests.deployments.fake_replicas import IMAGE, Reader, Replica, Replicas, settle, until


def fail_first(replica: Replica, method: str, *errors: BaseException) -> list[BaseException]:
    """Let the first calls of a replica's method raise these. Returns those that are left."""
    left, call = list(errors), getattr(replica, method)

    async def instead(*args: Any) -> Any:
        if left:
            raise left.pop(0)
        return await call(*args)

    setattr(replica, method, instead)
    return left


async def deliver(replicas: Replicas, name: str, reader: Reader) -> None:
    """The replica gets the image's call, and finishes it."""
    await until(lambda: replicas.all[name].running)
    replicas.all[name].running[-1].put(IMAGE)
    assert await reader.task == IMAGE


@pytest.mark.parametrize(
    "error",
    [
        RaySystemError("deserialization"),
        LocalRayletDiedError(),
        ActorUnavailableError("reset", None),
        RuntimeError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_heartbeat_that_fails_in_a_strange_way_leaves_nobody_waiting(
    run: Callable[[AsyncTest], None], error: Exception
) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        left = fail_first(replicas.all["a"], "heartbeat", error)
        reader = replicas.submit("1")[0]
        await until(lambda: not left)
        if isinstance(error, RuntimeError):  # a mistake in our own code: this replica is given up, and replaced
            await until(lambda: not replicas.queue.fleet.views)
            replicas.tell("b")
            await deliver(replicas, "b", reader)
        else:
            await deliver(replicas, "a", reader)
            assert replicas.all["a"].kills == 0

    run(test)


def test_a_replica_that_answers_nothing_but_errors_is_given_up(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        await until(lambda: replicas.queue.fleet.curve is not None)
        fail_first(replicas.all["a"], "heartbeat", *[RaySystemError("skew")] * 1000)
        await until(lambda: replicas.all["a"].kills == 1)

    run(test)


def test_a_replica_whose_actor_is_found_late_is_used_all_the_same(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make()
        replicas.all["a"] = Replica("a")
        find, tries = replicas.find, 0

        async def find_late(name: str) -> Replica:
            nonlocal tries
            tries += 1
            if tries == 1:
                await asyncio.sleep(600)
            return await find(name)

        replicas.find = find_late  # type: ignore[method-assign]
        replicas.tell("a")
        await deliver(replicas, "a", replicas.submit("1")[0])
        assert replicas.all["a"].kills == 0

    run(test)


def test_a_loop_that_stood_still_kills_no_replica(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        reader = replicas.submit("1")[0]
        await until(lambda: replicas.all["a"].running)
        heartbeat, slow = replicas.all["a"].heartbeat, asyncio.Event()

        async def answer_late(*args: Any) -> Any:
            slow.set()
            await asyncio.sleep(0.3)
            return await heartbeat(*args)

        replicas.all["a"].heartbeat = answer_late  # type: ignore[method-assign]
        await slow.wait()
        time.sleep(1.0)  # the loop itself is held up
        replicas.all["a"].heartbeat = heartbeat  # type: ignore[method-assign]
        await asyncio.sleep(0.1)
        assert replicas.all["a"].kills == 0
        await deliver(replicas, "a", reader)

    run(test)


@pytest.mark.parametrize(
    "error",
    [
        ObjectStoreFullError("here"),
        RaySystemError("here"),
        RayTaskError("generate", "a traceback", Cancelled("the lease has lapsed")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_trouble_that_is_not_the_replica_s_death_kills_nothing_and_costs_nobody_their_image(
    run: Callable[[AsyncTest], None], error: Exception
) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        reader = replicas.submit("1")[0]
        streams = replicas.all["a"].streams
        await until(lambda: len(streams) == 1)
        streams[0].put(error)
        await until(lambda: len(streams) == 2)
        assert not streams[1].suspect
        streams[1].put(IMAGE)
        assert await reader.task == IMAGE
        assert replicas.all["a"].kills == 0

    run(test)


@pytest.mark.parametrize(
    "error",
    [ActorDiedError(), asyncio.CancelledError(), None],
    ids=["its replica died", "it was cancelled elsewhere", "it succeeded and nothing came"],
)
def test_a_wake_call_that_brings_no_replica_is_made_again(
    run: Callable[[AsyncTest], None], error: BaseException | None
) -> None:
    async def test(make: Make) -> None:
        replicas = make()
        reader = replicas.submit("1")[0]
        await until(lambda: len(replicas.woken) == 1)
        if error is None:
            replicas.woken[0].set_result(None)
        else:
            replicas.woken[0].set_exception(error) if isinstance(error, Exception) else replicas.woken[0].cancel()
        await until(lambda: len(replicas.woken) == 2)
        assert not reader.task.done()
        replicas.tell("a")
        await deliver(replicas, "a", reader)
        await settle()

    run(test)
