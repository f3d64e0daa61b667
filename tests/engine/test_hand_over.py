"""Handing over: each image in the batch tells where it is, and leaves; another engine draws the same from there."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.errors import Draining, GenerationFailed
from serve_app.models.load_family import load_family
from serve_app.requests.events import ResumePoint
from serve_app.requests.params import HiresParams
from tests.compare_images import pixels
from tests.conftest import tiny_config
from tests.engine.spied import Spied, hold
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, photo


def exact_engine(source: Path) -> tuple[Engine, Spied]:
    """A deterministic engine whose resume points are never due."""
    config = tiny_config(source, resume_interval_s=1e9, deterministic=True, bucket_rows=2)
    family: Any = Spied(load_family(config))
    return Engine(family, config), family


class Told:
    """Keeps the order in which a request's resume points and its end were told."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.callbacks = Callbacks(on_resume_point=self.events.append)

    def watch(self, future: Future[Any]) -> None:
        future.add_done_callback(lambda done: self.events.append(done.exception()))


def test_each_image_tells_where_it_is_and_then_ends_and_goes_on_elsewhere(tiny_sd: Path) -> None:
    engine, family = exact_engine(tiny_sd)
    asked = [request(engine, seed=seed, sampler="euler_a", num_inference_steps=6) for seed in (1, 2)]
    told = [Told() for _ in asked]
    with engine:
        whole = [pixels(engine.submit(one).result(30)) for one in asked]
        reached, go = hold(family)
        told[0].watch(engine.submit(asked[0], callbacks=told[0].callbacks))
        assert reached.wait(30)
        told[1].watch(engine.submit(asked[1], callbacks=told[1].callbacks))
        both_step, go_on = hold(family)
        go.set()
        assert both_step.wait(30)
        engine.hand_over()
        assert not any(its.events for its in told), "after the current step, not before"
        go_on.set()
        for its in told:
            wait_for(lambda its=its: len(its.events) == 2)
    other, _ = exact_engine(tiny_sd)
    with other:
        for one, its, image in zip(asked, told, whole, strict=True):
            point, end = its.events
            assert isinstance(point, ResumePoint)
            assert isinstance(end, Draining)
            assert (pixels(other.submit(one, resume_from=point).result(30)) == image).all()
    assert [its.events[0].step_index for its in told] == [2, 1], "the step that ran was not lost"  # type: ignore[attr-defined]


def test_it_returns_at_once_and_nothing_is_taken_any_more(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    future = engine.submit(request(engine))
    assert reached.wait(30)
    began = time.monotonic()
    engine.hand_over()
    engine.hand_over()
    assert time.monotonic() - began < 1
    with pytest.raises(Draining):
        engine.submit(request(engine))
    go.set()
    assert isinstance(future.exception(30), Draining)
    engine.check_health()


def test_what_waits_for_its_first_step_ends_without_a_point(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    engine.submit(request(engine))
    assert reached.wait(30)
    told = Told()
    waiting = engine.submit(request(engine), callbacks=told.callbacks)
    engine.hand_over()
    go.set()
    assert isinstance(waiting.exception(30), Draining)
    assert told.events == []


def hold_decoding(family: Spied) -> tuple[threading.Event, threading.Event]:
    reached, go = threading.Event(), threading.Event()
    decode = family.autoencoder.decode

    def wait(latents: torch.Tensor) -> torch.Tensor:
        reached.set()
        assert go.wait(30)
        return decode(latents)

    family.autoencoder.decode = wait
    return reached, go


def test_what_is_being_decoded_is_finished_and_an_init_image_is_not_encoded(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold_decoding(family)
    finishing = [engine.submit(request(engine, num_inference_steps=1, seed=seed)) for seed in (1, 2)]
    assert reached.wait(30)
    wait_for(lambda: engine.counters.rows_in_flight == 0)
    waiting = engine.submit(request(engine, image=as_file(photo()), strength=0.6))
    engine.hand_over()
    go.set()
    assert isinstance(waiting.exception(30), Draining)
    assert [pixels(future.result(30)).shape for future in finishing] == [(64, 64, 3)] * 2


def test_a_second_pass_tells_its_own_point(tiny_sd: Path) -> None:
    engine, family = exact_engine(tiny_sd)
    asked = request(engine, sampler="euler_a", hires=HiresParams(scale=1.5, num_inference_steps=5))
    with engine:
        whole = pixels(engine.submit(asked).result(30))
        told = Told()
        in_second = threading.Event()

        def hand_over_in_second_pass(batch: Any) -> None:
            if batch.latents.shape[-1] == 12 and not in_second.is_set():
                in_second.set()
                engine.hand_over()

        family.before_predict = hand_over_in_second_pass
        future = engine.submit(asked, callbacks=told.callbacks)
        assert isinstance(future.exception(30), Draining)
    [point] = told.events
    assert isinstance(point, ResumePoint)
    assert (point.pass_index, point.step_index) == (1, 1)
    other, _ = exact_engine(tiny_sd)
    with other:
        assert (pixels(other.submit(asked, resume_from=point).result(30)) == whole).all()


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_a_second_pass_that_has_not_begun_ends(tiny_sd: Path, upscaler: str) -> None:
    engine, family = exact_engine(tiny_sd)
    with engine:
        reached, go = hold_decoding(family)
        ahead = engine.submit(request(engine, num_inference_steps=1))
        assert reached.wait(30)
        between = engine.submit(
            request(engine, num_inference_steps=1, hires={"scale": 1.5, "strength": 1.0, "upscaler": upscaler})
        )
        wait_for(lambda: engine.counters.rows_in_flight == 0 and engine.counters.steps >= 2)
        engine.hand_over()
        go.set()
        assert isinstance(between.exception(30), Draining)
        assert ahead.result(30)


def test_a_first_pass_that_is_being_decoded_has_no_second(tiny_sd: Path) -> None:
    engine, family = exact_engine(tiny_sd)
    with engine:
        reached, go = hold_decoding(family)
        between = engine.submit(request(engine, num_inference_steps=1, hires={"scale": 1.5, "strength": 1.0}))
        assert reached.wait(30)
        engine.hand_over()
        go.set()
        assert isinstance(between.exception(30), Draining)


def test_a_callback_that_raises_fails_its_own_image_alone(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    told = Told()

    def burst(_: ResumePoint) -> None:
        raise KeyError("my own mistake")

    bad = engine.submit(request(engine), callbacks=Callbacks(on_resume_point=burst))
    good = engine.submit(request(engine), callbacks=told.callbacks)
    assert reached.wait(30)
    engine.hand_over()
    go.set()
    assert isinstance(bad.exception(30), GenerationFailed)
    assert isinstance(good.exception(30), Draining)


def test_handing_over_amid_submissions_settles_every_future(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd)
    futures: list[Any] = []

    def submit() -> None:
        while True:
            try:
                futures.append(engine.submit(request(engine, num_inference_steps=3)))
            except Draining:
                return
            time.sleep(0.002)

    with Engine(load_family(config), config) as engine:
        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        engine.hand_over()
        for thread in threads:
            thread.join(30)
        assert futures
        assert all(isinstance(future.exception(30), Draining | None) for future in futures)
    assert engine.replica_load().images == 0


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
