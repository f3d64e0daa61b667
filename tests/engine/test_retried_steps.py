"""A step that fails and is tried again: the same noise, and no row steps twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine import step as step_module
from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.engine.trajectory import Trajectory
from serve_app.errors import Draining
from serve_app.models.load_family import load_family
from serve_app.requests.events import ResumePoint
from serve_app.requests.request import CallerContext
from tests.conftest import tiny_config
from tests.engine.spied import Spied, hold
from tests.engine.tiny_requests import request

ERRORS = [ValueError("my own mistake"), torch.OutOfMemoryError("CUDA out of memory.")]


def failing_once(work: Callable[..., Any], error: Exception, at: int) -> Callable[..., Any]:
    """Calls `work`, and in its call `at` raises afterwards."""
    calls = 0

    def run(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        found = work(*given, **named)
        if calls == at:
            raise error
        return found

    return run


def draw_together(engine: Engine, family: Spied, begin: Callable[[], None] = lambda: None) -> list[bytes]:
    """Three images that share every step; `begin` is called before their first."""
    reached, go = hold(family)
    first = engine.submit(request(engine, num_inference_steps=1))
    assert reached.wait(30)
    samplers = ("euler_a", "ddpm", "dpmpp_2m_sde")
    futures = [
        engine.submit(request(engine, sampler=sampler, seed=seed, num_inference_steps=5), CallerContext(previews=1))
        for seed, sampler in enumerate(samplers)
    ]
    family.before_predict = lambda _: None
    begin()
    go.set()
    first.result(30)
    return [future.result(30).content for future in futures]


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("at", [2, 4])
@pytest.mark.parametrize("place", ["advance", "next_state"])
def test_the_images_are_the_undisturbed_ones(
    tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, place: str, at: int, error: Exception
) -> None:
    config = tiny_config(tiny_sd, deterministic=True, bucket_rows=2)
    family: Any = Spied(load_family(config))
    with Engine(family, config) as engine:
        whole = draw_together(engine, family)
        owner: Any = step_module if place == "advance" else Trajectory
        disturb = failing_once(getattr(owner, place), error, at)
        disturbed = draw_together(
            engine, family, lambda: monkeypatch.setattr(owner, place, lambda *given: disturb(*given))
        )
    assert disturbed == whole


def test_a_point_told_between_two_tries_does_not_count_the_noise_of_the_step(
    tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row's noise is drawn in a failed try with a row that fails for good; its own step follows."""
    config = tiny_config(tiny_sd, deterministic=True, bucket_rows=2, resume_interval_s=1e-9)
    family: Any = Spied(load_family(config))
    points: list[ResumePoint] = []
    with Engine(family, config) as engine:
        asked = request(engine, sampler="euler_a", num_inference_steps=4)
        whole = engine.submit(asked).result(30)
        advance = failing_once(step_module.advance, ERRORS[0], 2)
        monkeypatch.setattr(step_module, "advance", advance)
        future = engine.submit(asked, callbacks=Callbacks(on_resume_point=points.append))
        with pytest.raises(Exception, match="my own mistake"):
            future.result(30)
        monkeypatch.undo()
        assert engine.submit(asked, resume_from=points[0]).result(30).content == whole.content


@pytest.mark.parametrize("count", [1, 2])
def test_a_report_that_fails_repeats_no_step(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The step was done when telling it failed: the other rows must not take it again."""
    config = tiny_config(tiny_sd, resume_interval_s=1e-9)
    family: Any = Spied(load_family(config))
    with Engine(family, config) as engine:
        family.forget()
        resume_point = Trajectory.resume_point

        def refuse(row: Trajectory) -> ResumePoint:
            if row.pass_.request.seed == 1:
                raise KeyError("my own mistake")
            return resume_point(row)

        monkeypatch.setattr(Trajectory, "resume_point", refuse)
        reached, go = hold(family)
        callbacks = Callbacks(on_resume_point=lambda _: None)
        futures = [engine.submit(request(engine, seed=seed), callbacks=callbacks) for seed in range(1, 1 + count)]
        futures.append(engine.submit(request(engine, seed=5), callbacks=callbacks))
        assert reached.wait(30)
        go.set()
        assert futures[-1].result(30)
        with pytest.raises(Exception, match="my own mistake"):
            futures[0].result(30)
    assert len(family.batches) <= 5


def test_handing_over_after_a_failed_try_keeps_the_seed_contract(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, deterministic=True, bucket_rows=2)
    family: Any = Spied(load_family(config))
    points: list[ResumePoint] = []
    with Engine(family, config) as engine:
        asked = request(engine, sampler="euler_a", num_inference_steps=4)
        whole = engine.submit(asked).result(30)
        reached, go = hold(family)
        future = engine.submit(asked, callbacks=Callbacks(on_resume_point=points.append))
        assert reached.wait(30)
        engine.hand_over()
        go.set()
        assert isinstance(future.exception(30), Draining)
    with Engine(family, config) as other:
        family.before_predict = lambda _: None
        assert other.submit(asked, resume_from=points[0]).result(30).content == whole.content
