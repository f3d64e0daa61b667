"""No future is left: whatever fails, whenever, and however the engine ends, each is settled."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine import engine as facade
from serve_app.engine import vae_worker
from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.engine.scheduler import DeadlineOrder
from serve_app.engine.vae_worker import VaeWorker
from serve_app.errors import DeviceLost, GenerationFailed, NotReady
from serve_app.models.load_family import load_family
from serve_app.models.preview_decoder import choose_preview_decoder
from serve_app.requests.events import GeneratedImage
from serve_app.requests.request import CallerContext
from tests.conftest import tiny_config
from tests.engine.spied import Spied
from tests.engine.test_device_lost import engine_threads
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, photo

DROPPED = "the engine has dropped the image"
MISTAKES = [
    *[ValueError("my own mistake"), KeyError("my own mistake")],
    *[MemoryError("no room"), torch.OutOfMemoryError("CUDA out of memory.")],
]


@pytest.mark.parametrize("place", ["_enlarge", "_decode", "_finish", "_encode"])
def test_an_image_that_is_dropped_on_its_way_fails(
    spied: tuple[Engine, Spied], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A mistake in the engine itself: a stage neither raises nor passes its image on."""
    engine, _ = spied
    monkeypatch.setattr(VaeWorker, place, lambda *_, **__: None)
    params: dict[str, Any] = {
        "_enlarge": {"hires": {"scale": 1.5, "upscaler": "latent"}},
        "_encode": {"image": as_file(photo()), "strength": 0.6},
    }
    with pytest.raises(GenerationFailed, match=DROPPED):
        engine.submit(request(engine, **params.get(place, {}))).result(10)
    monkeypatch.undo()
    assert engine.submit(request(engine)).result(30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_policy_that_plans_nothing_ends_the_engine(tiny_sd: Path) -> None:
    class Forgetful(DeadlineOrder[Any]):
        def add(self, row: Any) -> None:
            pass

    config = tiny_config(tiny_sd)
    with Engine(load_family(config), config, Forgetful(lambda _: 8, lambda *_: 1.0)) as engine:
        assert isinstance(engine.submit(request(engine)).exception(10), DeviceLost)


def test_a_model_whose_first_image_fails_leaves_no_threads(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("my own mistake")

    known = engine_threads()
    monkeypatch.setattr(vae_worker, "encode_image", refuse)
    with pytest.raises(GenerationFailed, match="my own mistake"):
        Engine.load(tiny_config(tiny_sd))
    assert set(engine_threads()) <= set(known)


class Unreliable:
    """Wraps calls so that each fails now and then, by a seed."""

    def __init__(self, seed: int, fatal_after: int | None) -> None:
        self._random = random.Random(seed)
        self._fatal_after = fatal_after
        self._lock = threading.Lock()
        self.calls = 0

    def wrap(self, call: Callable[..., Any], often: float = 0.05) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            with self._lock:
                self.calls += 1
                failing = self._random.random() < often
                mistake = self._random.choice(MISTAKES)
                fatal = self._fatal_after is not None and self.calls > self._fatal_after
            if fatal:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            if failing:
                raise mistake
            return call(*given, **named)

        return run


def unlike_params(rng: random.Random) -> Iterator[dict[str, Any]]:
    choices: list[dict[str, Any]] = [
        {},
        {"width": 96},
        {"sampler": "euler_a", "guidance_scale": 1.0},
        {"image": as_file(photo()), "strength": 0.6},
        {"hires": {"scale": 1.5, "upscaler": "latent"}},
        {"hires": {"scale": 1.5, "upscaler": "lanczos"}},
    ]
    while True:
        yield {"num_inference_steps": rng.randint(2, 12), "seed": rng.randint(0, 99), **rng.choice(choices)}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("end", ["close", "hand_over", "lost"])
def test_every_future_is_settled(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, end: str, seed: int) -> None:
    rng = random.Random(seed)
    faults = Unreliable(seed, fatal_after=rng.randint(20, 150) if end == "lost" else None)
    config = tiny_config(tiny_sd, resume_interval_s=1e-9, decode_batch=2)
    family: Any = Spied(load_family(config))
    decoder = choose_preview_decoder(family, config)
    monkeypatch.setattr(facade, "choose_preview_decoder", lambda *_: decoder)
    engine = Engine(family, config)
    family.before_predict = faults.wrap(lambda _: None)
    family.encode = faults.wrap(family.encode)
    monkeypatch.setattr(family.autoencoder, "encode", faults.wrap(family.autoencoder.encode))
    monkeypatch.setattr(family.autoencoder, "decode", faults.wrap(family.autoencoder.decode))
    monkeypatch.setattr(vae_worker, "encode_image", faults.wrap(vae_worker.encode_image))
    tell = faults.wrap(lambda _: None, 0.01)
    futures = []
    params = unlike_params(rng)
    for _ in range(30):
        asked, context = request(engine, f"prompt {rng.randint(0, 9)}", **next(params)), CallerContext(previews=1)
        try:
            future = engine.submit(asked, context, Callbacks(on_progress=tell, on_resume_point=tell))
        except NotReady:
            break
        futures.append(future)
        time.sleep(rng.random() * 0.01)
        match rng.randint(0, 9):
            case 0:
                future.cancel()
            case 1:
                future.interrupt()
    if end == "hand_over":
        engine.hand_over()
    engine.close()
    outcomes = [outcome_of(future) for future in futures]
    assert not any(DROPPED in str(one) for one in outcomes)
    assert engine.replica_load().images == 0
    if end == "lost" and faults.calls > 150:
        assert any(isinstance(one, DeviceLost) for one in outcomes)


def outcome_of(future: Any) -> GeneratedImage | BaseException:
    try:
        return future.exception(0.0) or future.result(0.0)
    except CancelledError as error:
        return error
