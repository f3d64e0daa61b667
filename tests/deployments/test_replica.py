"""The replica's event stream, in this process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.deployments.replica import ModelReplica
from serve_app.engine.engine import Engine
from serve_app.engine.image_future import ImageFuture
from serve_app.errors import ConfigError, InvalidRequest, ModelLoadError, NotReady
from serve_app.requests.events import GeneratedImage, Progress, Queued, ResumePoint
from serve_app.requests.request import CallerContext
from tests.compare_images import pixels
from tests.conftest import tiny_config
from tests.engine.tiny_requests import request


@pytest.fixture(scope="module")
def replica(tiny_sd: Path) -> Iterator[ModelReplica]:
    found = ModelReplica()
    asyncio.run(found.reconfigure(user_config(tiny_sd)))
    yield found
    found.__del__()


def user_config(source: Path, **changes: Any) -> dict[str, Any]:
    return {**tiny_config(source).model_dump(), **changes}


def test_progress_then_the_image(replica: ModelReplica, tiny_sd: Path) -> None:
    async def collect(with_progress: bool) -> list[object]:
        asked = request(tiny_config(tiny_sd), num_inference_steps=30)
        context = CallerContext(progress=with_progress, previews=2 if with_progress else 0)
        return [event async for event in replica.generate(asked, context)]

    queued, *progress, image = asyncio.run(collect(True))
    assert queued == Queued(0, 0.0)
    assert isinstance(image, GeneratedImage)
    assert progress
    steps = [event.step for event in progress if isinstance(event, Progress)]
    assert steps == sorted(set(steps)), "coalesced, never repeated, never back"
    assert all(event.steps == 30 for event in progress if isinstance(event, Progress))
    previews = [event.preview for event in progress if isinstance(event, Progress) and event.preview]
    assert [pixels(preview).shape for preview in previews] == [(64, 64, 3)] * 2
    error = [np.abs(pixels(preview) - pixels(image)).mean() for preview in previews]
    assert error[1] < error[0] or error[1] < 40, "the later, the nearer"
    plain = [event for event in asyncio.run(collect(False)) if not isinstance(event, ResumePoint)]
    assert len(plain) == 2, "a plain request is told when it is taken, and done"


def test_closing_the_stream_frees_the_rows(replica: ModelReplica, tiny_sd: Path) -> None:
    async def leave() -> None:
        asked = request(tiny_config(tiny_sd), num_inference_steps=150, sampler="heun")
        async with aclosing(replica.generate(asked, CallerContext(progress=True))) as events:  # pyright: ignore
            assert isinstance(await anext(events), Queued)
            assert isinstance(await anext(events), Progress)
            assert replica.counters().rows_in_flight == 2
        while replica.counters().rows_in_flight:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 30))
    assert replica.counters().cancelled == 1
    asyncio.run(replica.check_health())


def test_a_refused_request_raises_before_anything_is_drawn(replica: ModelReplica, tiny_sd: Path) -> None:
    async def ask() -> None:
        asked = request(tiny_config(tiny_sd), sampler="lcm", num_inference_steps=100)
        async for event in replica.generate(asked):
            assert isinstance(event, Queued)

    with pytest.raises(InvalidRequest, match="num_inference_steps"):
        asyncio.run(ask())


def test_leaving_while_the_request_is_submitted_cancels_it(
    replica: ModelReplica, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()
    futures: list[ImageFuture] = []
    submit = Engine.submit

    def slow_submit(engine: Engine, *arguments: Any) -> ImageFuture:
        entered.set()
        assert go.wait(30)
        futures.append(submit(engine, *arguments))
        return futures[0]

    async def leave() -> None:
        asked = request(tiny_config(tiny_sd), num_inference_steps=150, sampler="heun")
        stream: Any = replica.generate(asked)
        await anext(stream)
        caller = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(entered.wait, 30)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go.set()
        while not futures or not futures[0].cancelled():
            await asyncio.sleep(0.01)

    monkeypatch.setattr(Engine, "submit", slow_submit)
    asyncio.run(asyncio.wait_for(leave(), 30))


def test_a_named_task_tells_its_owner_how_far_it_is(replica: ModelReplica, tiny_sd: Path) -> None:
    async def run() -> None:
        asked = request(tiny_config(tiny_sd), num_inference_steps=150, sampler="heun")
        context = CallerContext(task="mine", owner="me", progress=True, previews=100)
        async with aclosing(replica.generate(asked, context)) as events:  # pyright: ignore
            async for event in events:
                found = replica.progress_of("mine", "me")
                if isinstance(event, Progress) and event.preview and found:
                    assert isinstance(found, Progress)
                    assert found.preview
                    assert replica.progress_of("mine", "you") is None
                    break
        assert replica.progress_of("mine", "me") is None
        while replica.counters().rows_in_flight:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_task_that_is_cut_short_gives_the_picture_as_far_as_it_is(replica: ModelReplica, tiny_sd: Path) -> None:
    async def run() -> tuple[list[Progress], GeneratedImage]:
        asked = request(tiny_config(tiny_sd), num_inference_steps=150, sampler="heun")
        told: list[Progress] = []
        async for event in replica.generate(asked, CallerContext(task="mine", owner="me", progress=True)):
            if isinstance(event, Progress):
                told.append(event)
                assert replica.interrupt("mine", "you") == 0
                assert replica.interrupt("mine", "me") == 1
            elif isinstance(event, GeneratedImage):
                return told, event
        pytest.fail("no image")

    told, image = asyncio.run(asyncio.wait_for(run(), 60))
    assert pixels(image).shape == (64, 64, 3)
    assert told[-1].step < 100
    assert replica.counters().rows_in_flight == 0


def test_previews_are_rendered_only_for_whoever_asks(replica: ModelReplica, tiny_sd: Path) -> None:
    async def run(polls: int) -> int:
        asked = request(tiny_config(tiny_sd), num_inference_steps=40, sampler="heun")
        previews, context = 0, CallerContext(task="mine", owner="me", progress=True)
        async for event in replica.generate(asked, context):
            previews += isinstance(event, Progress) and event.preview is not None
            if polls and isinstance(event, Progress) and event.step > 5:
                polls -= 1
                replica.progress_of("mine", "me", preview=True)
        return previews

    assert asyncio.run(asyncio.wait_for(run(0), 60)) == 0
    assert asyncio.run(asyncio.wait_for(run(1), 60)) == 1
    assert 1 <= asyncio.run(asyncio.wait_for(run(3), 60)) <= 3


def test_the_first_config_must_be_sound_and_its_model_loadable(tiny_sd: Path) -> None:
    replica = ModelReplica("sd15")
    with pytest.raises(ConfigError, match=r"deployments.model-sd15.user_config.source: must be given"):
        asyncio.run(replica.reconfigure({}))
    with pytest.raises(ModelLoadError, match=r"deployments.model-sd15.user_config.source: /no/such/model does not"):
        asyncio.run(replica.reconfigure(user_config(Path("/no/such/model"))))
    with pytest.raises(NotReady, match="no model is loaded"):
        asyncio.run(replica.check_health())
    replica.__del__()


def test_a_later_config_changes_the_model_while_images_are_drawn(
    tiny_sd: Path, tiny_sd_v: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = Path("/no/such/model")

    async def run() -> None:
        replica = ModelReplica("sd15")
        await replica.reconfigure(user_config(tiny_sd))
        asked = request(tiny_config(tiny_sd), num_inference_steps=150, sampler="heun")
        async with aclosing(replica.generate(asked)) as events:  # pyright: ignore
            await anext(events)
            mistakes = {"sourc: is not a key": {"sourc": "x"}, str(missing): user_config(missing)}
            for message, wrong in mistakes.items():
                await replica.reconfigure(wrong)
                while message not in replica.refusal():
                    await asyncio.sleep(0.01)
            assert (await replica.capabilities()).source == str(tiny_sd), "refused, and the earlier one kept"
            assert str(missing) in caplog.text
            await replica.reconfigure(user_config(tiny_sd_v))
            while (await replica.capabilities()).source != str(tiny_sd_v):
                await asyncio.sleep(0.01)
            left = [event async for event in events]
            assert isinstance(left[-1], GeneratedImage), "the old model ends what it has begun"
        assert [event async for event in replica.generate(asked)][-1]
        assert replica.refusal() == ""
        await replica.check_health()
        replica.__del__()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_retry_joins_the_image_that_runs_and_it_is_drawn_once(replica: ModelReplica, tiny_sd: Path) -> None:
    async def run() -> tuple[list[object], list[object], int]:
        asked = request(tiny_config(tiny_sd), num_inference_steps=60, sampler="heun")
        context = CallerContext(idempotency_key="k/0", task="mine", owner="me", progress=True)
        before = replica.counters().steps
        first: Any = replica.generate(asked, context, ingress="dead")
        assert isinstance(await anext(first), Queued)
        assert isinstance(await anext(first), Progress)
        assert replica.find_images(["k/0", "k/1"]) == ["k/0"]
        second = asyncio.ensure_future(collect(replica.generate(asked, context, ingress="alive")))
        await asyncio.sleep(0.05)
        await first.aclose()
        joined = await second
        return joined, await collect(replica.generate(asked, context)), replica.counters().steps - before

    async def collect(stream: Any) -> list[object]:
        return [event async for event in stream]

    joined, later, steps = asyncio.run(asyncio.wait_for(run(), 60))
    assert isinstance(joined[-1], GeneratedImage)
    assert any(isinstance(event, Progress) for event in joined)
    assert later[-1] == joined[-1]
    assert steps == 119
