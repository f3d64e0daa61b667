"""The ingress' own queue: who waits, which replica draws, and what follows when a replica is lost."""

import asyncio
from collections.abc import Callable

import pytest
from ray.exceptions import ActorDiedError, ObjectLostError, OutOfMemoryError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError

from serve_app.config import ModelSettings
from serve_app.deployments import image_run
from serve_app.errors import (
    Cancelled,
    DarkroomError,
    DeviceLost,
    Draining,
    GenerationFailed,
    InvalidRequest,
    NotReady,
    Overloaded,
    Poisoned,
    ReplicaFull,
)
from serve_app.requests.events import Queued
from tests.deployments.conftest import AsyncTest, Make
from tests.deployments.fake_replicas import IMAGE, Reader, Replicas, Stream, point, prompts, settle, until


def in_order(replicas: Replicas, name: str) -> list[Stream]:
    return replicas.all[name].running


async def started(replicas: Replicas, count: int) -> None:
    await until(lambda: sum(len(one.running) for one in replicas.all.values()) == count)


def test_a_replica_gets_two_batches_and_the_rest_wait_and_hear_their_position(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit(*"123456")
        await started(replicas, 4)
        assert prompts(in_order(replicas, "a")) == list("1234")
        await until(lambda: readers[5].events and readers[5].events[-1].position == 1)
        in_order(replicas, "a")[0].put(IMAGE)
        assert await readers[0].task == IMAGE
        await until(lambda: prompts(replicas.all["a"].streams) == list("12345"))
        await until(lambda: readers[5].events[-1].position == 0)
        assert all(isinstance(reader.events[0], Queued) for reader in readers), "told at once that it is accepted"

    run(test)


def test_work_goes_to_the_replica_that_has_least(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a", "b")
        replicas.submit(*"12345678")
        await started(replicas, 8)
        assert [len(in_order(replicas, name)) for name in "ab"] == [4, 4]
        await until(lambda: replicas.all["a"].queued_s == 0.0)

    run(test)


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        OutOfMemoryError("the node"),
        RayTaskError("generate", "a traceback", DeviceLost("gone")),
        DeviceLost("by gRPC errors come as they are"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ran_in_a_replica_that_died_goes_on_one_at_a_time_from_its_last_resume_point(
    run: Callable[[AsyncTest], None], error: Exception
) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit(*"123")
        await started(replicas, 3)
        first, second, third = in_order(replicas, "a")
        second.put(point(4))
        await settle()
        first.put(error)
        await until(lambda: not replicas.queue.fleet.views)
        assert replicas.all["a"].kills == 1, "it is of no use any more"
        replicas.tell("b")
        streams = replicas.all["b"].streams
        for count, prompt in enumerate("123", start=1):
            await until(lambda count=count: len(streams) == count)
            await settle()
            assert (streams[-1].prompt, streams[-1].suspect, len(streams)) == (prompt, True, count)
            assert streams[-1].saved == (point(4) if prompt == "2" else None)
            streams[-1].put(point(9))
        for stream in streams:
            stream.put(IMAGE)
        assert [await reader.task for reader in readers] == [IMAGE] * 3
        del third

    run(test)


def test_a_broken_device_convicts_nobody_while_another_replica_is_well(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("well", "broken0")
        readers = replicas.submit(*map(str, range(12)))
        deaths = 0
        while not all(reader.task.done() for reader in readers):
            await settle()
            for stream in in_order(replicas, "well"):
                stream.put(point(5), IMAGE)
                stream.cancelled = True
            broken = replicas.all[f"broken{deaths}"]
            if broken.running and not broken.is_dead:
                deaths += 1
                broken.is_dead = True
                broken.running[0].put(RayTaskError("generate", "a traceback", DeviceLost("gone")))
                replicas.tell("well", f"broken{deaths}")
            await asyncio.sleep(0.01)
        assert [await reader.task for reader in readers] == [IMAGE] * 12
        assert deaths >= 2

    run(test)


def test_poison_is_found_alone_after_three_deaths_and_its_neighbours_are_not_harmed(
    run: Callable[[AsyncTest], None],
) -> None:
    async def test(make: Make) -> None:
        replicas = make("r0")
        readers = replicas.submit("poison", *"1234567")
        deaths = 0

        async def play() -> None:
            nonlocal deaths
            while not all(reader.task.done() for reader in readers):
                await settle()
                for name, replica in list(replicas.all.items()):
                    drawn = [stream for stream in replica.running if not replica.is_dead]
                    if any(stream.prompt == "poison" for stream in drawn):
                        deaths += 1
                        replica.die()
                        replicas.tell(f"r{deaths}")
                    else:
                        for stream in drawn:
                            stream.put(IMAGE)
                            replica.streams.remove(stream)
                    del name
                await asyncio.sleep(0.01)

        await play()
        assert deaths <= 3
        with pytest.raises(Poisoned):
            await readers[0].task
        assert [await reader.task for reader in readers[1:]] == [IMAGE] * 7

    run(test)


def test_a_replica_that_is_about_to_stop_hands_its_images_over(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a", "b")
        replicas.submit(*"12345678")
        await started(replicas, 8)
        leaving = replicas.all["a"].running
        replicas.tell("b", "c")
        await until(lambda: len(in_order(replicas, "c")) == 4)
        moved = replicas.all["c"].streams
        assert {stream.prompt for stream in moved} == {stream.prompt for stream in leaving}
        assert all(stream.saved == point(5) and not stream.alone for stream in moved), "it convicts nobody"
        assert replicas.all["a"].kills == 0

    run(test)


def test_replicas_on_a_node_that_is_about_to_be_drained_are_left_where_there_is_another(
    run: Callable[[AsyncTest], None],
) -> None:
    async def test(make: Make) -> None:
        replicas = make()
        replicas.nodes = {"a": "ending", "b": "staying"}
        replicas.tell("a")
        readers = replicas.submit(*"123")
        await started(replicas, 3)
        replicas.queue.fleet.leave_nodes(frozenset({"ending"}))
        readers += replicas.submit("4")
        await started(replicas, 4)
        assert len(in_order(replicas, "a")) == 4, "it is the only one"
        replicas.tell("a", "b")
        await until(lambda: len(in_order(replicas, "b")) == 4)
        assert replicas.all["a"].kills == 0
        readers += replicas.submit("5")
        in_order(replicas, "b")[0].put(IMAGE)
        await until(lambda: len(replicas.all["b"].streams) == 5)
        assert len(replicas.all["a"].streams) == 4
        replicas.tell("a")
        for stream in in_order(replicas, "b"):
            stream.put(IMAGE)
        readers += replicas.submit("6")
        await until(lambda: replicas.woken)
        assert len(replicas.all["a"].streams) == 4, "it takes nothing after it has handed over"
        replicas.nodes["c"] = "staying"
        replicas.tell("a", "c")
        await until(lambda: prompts(replicas.all["c"].streams) == ["6"])

    run(test)


def test_the_last_replica_ends_its_images_itself(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit("1")
        await started(replicas, 1)
        replicas.tell()
        await asyncio.sleep(0.2)
        in_order(replicas, "a")[0].put(IMAGE)
        assert await readers[0].task == IMAGE

    run(test)


def test_a_silent_replica_and_one_whose_step_hangs_are_killed(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        for fault in ("silent", "hanging"):
            replicas = make("a")
            readers = replicas.submit("1")
            await started(replicas, 1)
            if fault == "silent":
                replicas.all["a"].is_silent = True
            else:
                replicas.all["a"].load = replicas.all["a"].load.__class__(
                    curve=replicas.all["a"].load.curve, step_age_s=11.0, step_limit_s=10.0
                )
            await until(lambda replicas=replicas: replicas.all["a"].kills == 1)
            replicas.tell("b")
            await until(lambda replicas=replicas: len(in_order(replicas, "b")) == 1)
            in_order(replicas, "b")[0].put(IMAGE)
            assert await readers[0].task == IMAGE

    run(test)


@pytest.mark.parametrize(
    "error",
    [
        RayTaskError("generate", "a traceback", ReplicaFull("full")),
        RayTaskError("generate", "a traceback", NotReady("closed")),
        ReplicaFull("full"),
        NotReady("closed"),
        ObjectLostError("00" * 28, "", ""),
        None,
    ],
    ids=["full", "stopped", "full, by gRPC", "stopped, by gRPC", "object lost", "ended without its image"],
)
def test_what_a_live_replica_loses_is_tried_again_and_nobody_is_suspected(
    run: Callable[[AsyncTest], None], error: Exception | None
) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit("1")
        await started(replicas, 1)
        in_order(replicas, "a")[0].put(error)
        await until(lambda: len(replicas.all["a"].streams) == 2)
        again = replicas.all["a"].streams[1]
        assert not again.alone
        again.put(IMAGE)
        assert await readers[0].task == IMAGE
        assert replicas.all["a"].kills == 0

    run(test)


def test_a_request_is_not_tried_for_ever(run: Callable[[AsyncTest], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_run, "MAX_LOSSES", 2)

    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit("1")
        for count in range(1, 4):
            await until(lambda count=count: len(replicas.all["a"].streams) == count)
            replicas.all["a"].streams[-1].put(None)
        with pytest.raises(GenerationFailed, match="lost 3 times"):
            await readers[0].task

    run(test)


@pytest.mark.parametrize(
    "refusal", [ReplicaFull("full"), Draining("about to stop")], ids=lambda one: type(one).__name__
)
def test_a_replica_that_refuses_for_long_costs_nobody_their_image(
    run: Callable[[AsyncTest], None], refusal: DarkroomError
) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        replicas.all["a"].refusal = RayTaskError("generate", "a traceback", refusal)
        readers = replicas.submit("1")
        streams = replicas.all["a"].streams
        await until(lambda: len(streams) == 30)
        assert not any(stream.resumed for stream in streams), "no replica had begun it"
        replicas.all["a"].refusal = None
        await until(lambda: len(streams) == 31)
        streams[-1].put(IMAGE)
        assert await readers[0].task == IMAGE

    run(test)


@pytest.mark.parametrize("by_grpc", [False, True])
def test_a_request_s_own_error_ends_it_alone(run: Callable[[AsyncTest], None], by_grpc: bool) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit(*"12")
        await started(replicas, 2)
        wrong = InvalidRequest("sampler", "lcm", "must be another")
        first, second = in_order(replicas, "a")
        first.put(wrong if by_grpc else RayTaskError("generate", "a traceback", wrong))
        with pytest.raises(InvalidRequest):
            await readers[0].task
        second.put(IMAGE)
        assert await readers[1].task == IMAGE

    run(test)


def test_an_owner_stops_what_waits_and_what_runs(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit(*"12345")
        await started(replicas, 4)
        assert not replicas.queue.find("t", "you")
        assert len(replicas.queue.find("t", "me", only_waiting=True)) == 1
        found = replicas.queue.find("t", "me")
        assert len(found) == 5
        for one in found:
            one.abort(Cancelled("stopped by its owner"))
        for reader in readers:
            with pytest.raises(Cancelled):
                await reader.task
        assert all(stream.cancelled for stream in replicas.all["a"].streams)
        assert len(replicas.all["a"].streams) == 4
        assert not replicas.queue.find("t", "me")

    run(test)


def test_a_caller_that_leaves_frees_its_place(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        readers = replicas.submit(*"12345")
        await started(replicas, 4)
        readers[0].task.cancel()
        await until(lambda: len(replicas.all["a"].streams) == 5)
        assert replicas.all["a"].streams[0].cancelled

    run(test)


def test_one_call_wakes_a_model_that_has_no_replica_and_those_who_wait_are_served(
    run: Callable[[AsyncTest], None],
) -> None:
    async def test(make: Make) -> None:
        replicas = make()
        readers = replicas.submit(*"12")
        await until(lambda: len(replicas.woken) == 1)
        replicas.tell("a")
        replicas.woken[0].set_result(None)
        await started(replicas, 2)
        for stream in in_order(replicas, "a"):
            stream.put(IMAGE)
        assert [await reader.task for reader in readers] == [IMAGE] * 2
        assert len(replicas.woken) == 1

    run(test)


def test_those_who_wait_for_a_model_that_cannot_start_get_an_error(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make()
        readers = replicas.submit(*"12")
        await until(lambda: len(replicas.woken) == 1)
        replicas.woken[0].set_exception(DeploymentUnavailableError(None))  # type: ignore[arg-type]
        for reader in readers:
            with pytest.raises(NotReady, match="no replica that works"):
                await reader.task

    run(test)


def test_the_queue_is_bounded_and_images_of_a_request_are_admitted_together(run: Callable[[AsyncTest], None]) -> None:
    async def test(make: Make) -> None:
        replicas = make("a")
        replicas.queue.settings = ModelSettings(max_waiting=3)
        await until(lambda: replicas.queue.fleet.curve is not None)
        readers: list[Reader] = []
        for _ in range(3):
            readers += replicas.submit(*"12")
            await settle()
        assert len(replicas.all["a"].streams) == 4
        with pytest.raises(Overloaded) as caught:
            replicas.submit(*"12")
        assert caught.value.retry_after_s >= 1
        assert "2 of at most 3 images wait" in str(caught.value)
        assert len(replicas.queue.find("t", "me")) == 6

    run(test)
