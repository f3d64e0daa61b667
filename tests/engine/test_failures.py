"""Wherever one request fails: its future gets the error, the others get their images, the engine goes on."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.engine import engine as facade
from serve_app.engine import vae_worker
from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.engine.scheduler import DeadlineOrder
from serve_app.errors import GenerationFailed, NotReady
from serve_app.models.load_family import load_family
from serve_app.models.model_family import DenoisingBatch, Prompt, TokenizedPrompt
from serve_app.requests.events import Progress
from serve_app.requests.params import HiresParams
from serve_app.requests.request import CallerContext
from tests.compare_images import pixels
from tests.conftest import tiny_config
from tests.engine.spied import Spied
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, photo

MISTAKES = [RuntimeError, ValueError, TypeError, KeyError, MemoryError]
IMAGE = {"image": as_file(photo()), "strength": 0.6}


def raiser(error: type[Exception]) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error("my own mistake")

    return fail


def check_one_fails(engine: Engine, params: dict[str, Any], mend: Callable[[], None]) -> None:
    """The request fails by name; once `mend` was called the engine draws the same."""
    with pytest.raises(GenerationFailed, match="my own mistake"):
        engine.submit(request(engine, **params)).result(30)
    engine.check_health()
    mend()
    assert engine.submit(request(engine, **params)).result(30)


@pytest.mark.parametrize("error", MISTAKES)
def test_the_vae_encoder(spied: tuple[Engine, Spied], monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    engine, family = spied
    monkeypatch.setattr(family.autoencoder, "encode", raiser(error))
    check_one_fails(engine, IMAGE, monkeypatch.undo)


@pytest.mark.parametrize("error", MISTAKES)
def test_the_vae_decoder(spied: tuple[Engine, Spied], monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    engine, family = spied
    monkeypatch.setattr(family.autoencoder, "decode", raiser(error))
    check_one_fails(engine, {}, monkeypatch.undo)


@pytest.mark.parametrize("error", MISTAKES)
def test_the_file(spied: tuple[Engine, Spied], monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    monkeypatch.setattr(vae_worker, "encode_image", raiser(error))
    check_one_fails(spied[0], {}, monkeypatch.undo)


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_the_step_between_two_passes(
    spied: tuple[Engine, Spied], monkeypatch: pytest.MonkeyPatch, upscaler: str
) -> None:
    name = {"lanczos": "enlarge_pixels", "latent": "enlarge_latents"}[upscaler]
    monkeypatch.setattr(vae_worker, name, raiser(TypeError))
    check_one_fails(spied[0], {"hires": HiresParams(scale=1.5, upscaler=upscaler)}, monkeypatch.undo)  # type: ignore[arg-type]


@pytest.mark.parametrize("previews", [0, 7])
def test_a_callback(engine: Engine, previews: int) -> None:
    def burst(_: Progress) -> None:
        raise KeyError("my own mistake")

    bad = engine.submit(
        request(engine, num_inference_steps=8), CallerContext(previews=previews), Callbacks(on_progress=burst)
    )
    with pytest.raises(GenerationFailed, match="my own mistake"):
        bad.result(30)
    engine.check_health()
    assert engine.submit(request(engine)).result(30)


class Spoiled:
    """A preview decoder that always fails."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def paint(self, latents: torch.Tensor) -> np.ndarray:
        raise self._error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, TypeError])
def test_a_preview_that_fails_is_progress_without_a_preview(
    tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setattr(facade, "choose_preview_decoder", lambda *_: Spoiled(error))
    told: list[Progress] = []
    config = tiny_config(tiny_sd)
    with Engine(load_family(config), config) as engine:
        asked = request(engine, num_inference_steps=8)
        image = engine.submit(asked, CallerContext(previews=2), Callbacks(on_progress=told.append)).result(30)
    assert pixels(image).shape == (64, 64, 3)
    assert sorted(one.step for one in told) == list(range(1, 8))
    assert not any(one.preview for one in told)


class Broken(DeadlineOrder[Any]):
    """A policy with a mistake."""

    def plan(self) -> Any:
        if super().plan() is not None:
            raise TypeError("my own mistake")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_whose_thread_dies_fails_what_it_has_and_takes_no_more(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd)
    with Engine(load_family(config), config, Broken(lambda _: 8, lambda *_: 1.0)) as engine:
        with pytest.raises(NotReady, match="denoise thread has ended"):
            engine.submit(request(engine)).result(10)
        with pytest.raises(NotReady):
            engine.submit(request(engine))
        with pytest.raises(NotReady, match="thread has ended"):
            engine.check_health()


class SlowDisk(Spied):
    """A family whose LoRAs take long to read, but for the warm-up's prompt."""

    def __init__(self, family: Any) -> None:
        super().__init__(family)
        self.entered, self.go = threading.Event(), threading.Event()

    def tokenize(self, prompt: Prompt) -> TokenizedPrompt:
        if prompt.text != "warm-up":
            self.entered.set()
            assert self.go.wait(30)
        return self._family.tokenize(prompt)


def test_what_is_submitted_while_the_engine_closes_is_refused_not_forgotten(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd)
    family: Any = SlowDisk(load_family(config))
    engine = Engine(family, config)
    refused: list[BaseException] = []

    def submit() -> None:
        try:
            engine.submit(request(engine)).result(10)
        except (NotReady, TimeoutError) as error:
            refused.append(error)

    submitting = threading.Thread(target=submit)
    submitting.start()
    assert family.entered.wait(30)
    engine.close()
    family.go.set()
    submitting.join(30)
    assert [type(error) for error in refused] == [NotReady]


def test_closing_and_submitting_at_once_settles_every_future(tiny_sd: Path) -> None:
    """Eight threads submit until they are refused, while the engine closes."""
    config = tiny_config(tiny_sd)
    engine = Engine(load_family(config), config)
    futures: list[Any] = []

    def submit() -> None:
        while True:
            try:
                futures.append(engine.submit(request(engine, num_inference_steps=1)))
            except NotReady:
                return
            time.sleep(0.002)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    engine.close()
    for thread in threads:
        thread.join(30)
    assert futures
    assert all(future.result(10) for future in futures)


def test_a_row_that_fails_leaves_the_batch(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied

    def refuse(_: DenoisingBatch) -> None:
        raise KeyError("my own mistake")

    family.before_predict = refuse
    with pytest.raises(GenerationFailed, match="my own mistake"):
        engine.submit(request(engine)).result(30)
    family.before_predict = lambda _: None
    engine.submit(request(engine)).result(30)
    assert engine.counters.rows_in_flight == 0
    assert engine.counters.cancelled == 0
