"""A device that is broken for good: all images end at once as DeviceLost, nothing more is taken, the threads end."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine import engine as facade
from serve_app.engine import vae_worker
from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.engine.scheduler import DeadlineOrder
from serve_app.errors import DeviceLost, GenerationFailed
from serve_app.models.load_family import load_family
from serve_app.requests.request import CallerContext
from tests.conftest import tiny_config
from tests.engine.spied import Spied, hold
from tests.engine.test_hand_over import wait_for
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, photo


def broken(*_: Any) -> Any:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def engine_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name in ("denoise", "decode")]


def check_lost(engine: Engine, futures: list[Any], known: list[threading.Thread]) -> None:
    for future in futures:
        assert isinstance(future.exception(10), DeviceLost)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        engine.submit(request(engine))
    with pytest.raises(DeviceLost, match="illegal memory access"):
        engine.check_health()
    wait_for(lambda: set(engine_threads()) <= set(known), 5)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("place", ["predict", "prompt", "image", "decode"])
def test_wherever_it_is_found_all_images_end(tiny_sd: Path, place: str) -> None:
    known = engine_threads()
    config = tiny_config(tiny_sd)
    family: Any = Spied(load_family(config))
    engine = Engine(family, config)
    long = [engine.submit(request(engine, num_inference_steps=150, seed=seed)) for seed in (1, 2)]
    wait_for(lambda: engine.counters.steps > 0)
    match place:
        case "predict":
            family.before_predict = broken
        case "prompt":
            family.encode = broken
            long.append(engine.submit(request(engine, "never seen")))
        case "image":
            family.autoencoder.encode = broken
            long.append(engine.submit(request(engine, image=as_file(photo()), strength=0.5)))
        case _:
            family.autoencoder.decode = broken
            long.append(engine.submit(request(engine, num_inference_steps=1)))
    check_lost(engine, long, known)


class LostDecoder:
    """A preview decoder that finds the device lost."""

    def decode(self, latents: torch.Tensor) -> Any:
        return broken()


def test_a_preview_that_finds_it_ends_all(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = engine_threads()
    monkeypatch.setattr(facade, "choose_preview_decoder", lambda *_: LostDecoder())
    config = tiny_config(tiny_sd)
    engine = Engine(load_family(config), config)
    future = engine.submit(request(engine, num_inference_steps=150), CallerContext(previews=50))
    check_lost(engine, [future], known)


def test_a_file_thread_that_finds_it_ends_all(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = engine_threads()
    monkeypatch.setattr(vae_worker, "encode_image", broken)
    config = tiny_config(tiny_sd)
    engine = Engine(load_family(config), config)
    futures = [engine.submit(request(engine, num_inference_steps=count)) for count in (150, 1)]
    check_lost(engine, futures, known)


def test_it_is_not_tried_row_by_row(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    futures = [engine.submit(request(engine, seed=seed, num_inference_steps=150)) for seed in range(3)]
    assert reached.wait(30)
    calls: list[int] = []

    def fail(batch: Any) -> None:
        calls.append(len(batch.latents))
        broken()

    family.before_predict = fail
    go.set()
    assert all(isinstance(future.exception(10), DeviceLost) for future in futures)
    assert len(calls) == 1


def test_a_step_that_hangs_elsewhere_does_not_hold_the_images_back(tiny_sd: Path) -> None:
    """The decode thread finds the device lost while the denoise thread is stuck in it."""
    config = tiny_config(tiny_sd)
    family: Any = Spied(load_family(config))
    engine = Engine(family, config)
    family.autoencoder.encode = broken
    reached, go = hold(family)
    stuck = engine.submit(request(engine))
    assert reached.wait(30)
    future = engine.submit(request(engine, image=as_file(photo()), strength=0.5))
    assert isinstance(future.exception(5), DeviceLost)
    assert isinstance(stuck.exception(5), DeviceLost)
    go.set()
    engine.close()


def test_closing_does_not_wait_for_a_stuck_thread(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.engine.engine_threads.LOST_JOIN_SECONDS", 0.2)
    config = tiny_config(tiny_sd)
    family: Any = Spied(load_family(config))
    engine = Engine(family, config)
    family.autoencoder.encode = broken
    reached, go = hold(family)
    engine.submit(request(engine))
    assert reached.wait(30)
    engine.submit(request(engine, image=as_file(photo()), strength=0.5)).exception(5)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 2
    go.set()


def test_an_error_of_a_request_is_its_own(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied

    def refuse(_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: invalid argument")

    family.before_predict = refuse
    with pytest.raises(GenerationFailed, match="invalid argument"):
        engine.submit(request(engine)).result(30)
    family.before_predict = lambda _: None
    assert engine.submit(request(engine)).result(30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [TypeError("my own mistake"), torch.AcceleratorError("CUDA error: unknown error")])
def test_an_error_outside_of_any_request_ends_the_engine_for_good(tiny_sd: Path, error: Exception) -> None:
    class Raising(DeadlineOrder[Any]):
        def plan(self) -> Any:
            if super().plan() is not None:
                raise error

    config = tiny_config(tiny_sd)
    with Engine(load_family(config), config, Raising(lambda _: 8, lambda *_: 1.0)) as engine:
        assert isinstance(engine.submit(request(engine)).exception(10), DeviceLost)
        with pytest.raises(DeviceLost):
            engine.check_health()


def test_the_health_check_finds_it(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tiny_sd)
    family: Any = Spied(load_family(config))
    engine = Engine(family, config)
    future = engine.submit(request(engine, num_inference_steps=150))
    family.device = torch.device("cuda")
    zeros = torch.zeros

    def lost(*given: Any, **options: Any) -> Any:
        return broken() if options.get("device") == torch.device("cuda") else zeros(*given, **options)

    monkeypatch.setattr(torch, "zeros", lost)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        engine.check_health()
    assert isinstance(future.exception(10), DeviceLost)
    engine.close()


def test_losing_the_device_while_handing_over_settles_every_future(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    told: list[object] = []

    def burst(point: object) -> None:
        told.append(point)
        broken()

    futures = [engine.submit(request(engine, seed=seed), callbacks=Callbacks(on_resume_point=burst)) for seed in (1, 2)]
    assert reached.wait(30)
    engine.hand_over()
    go.set()
    assert all(isinstance(future.exception(10), DeviceLost) for future in futures)
    assert len(told) <= 1
