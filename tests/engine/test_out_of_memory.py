"""Out of memory on the device: fewer rows in a step, nothing fails, and the images are the same."""

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine.device_turns import DeviceTurns
from serve_app.engine.engine import Engine
from serve_app.engine.row_caps import RowCaps
from serve_app.errors import GenerationFailed
from serve_app.models.load_family import load_family
from serve_app.models.model_family import DenoisingBatch
from tests.compare_images import difference
from tests.conftest import tiny_config
from tests.engine.spied import Spied, hold
from tests.engine.test_load import Clock
from tests.engine.tiny_requests import request, unlike_requests
from tests.sample_images import as_file, photo

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError("no room"),
]


def limit_rows(family: Spied, most: int, error: Exception = ERRORS[0]) -> list[int]:
    """Let forwards of more than `most` rows fail. Returns the rows of every forward, as they come."""
    tried: list[int] = []

    def refuse(batch: DenoisingBatch) -> None:
        tried.append(len(batch.latents))
        if len(batch.latents) > most:
            raise error

    family.before_predict = refuse
    return tried


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: type(one).__name__)
def test_a_step_is_done_with_fewer_rows(spied: tuple[Engine, Spied], error: Exception) -> None:
    engine, family = spied
    asked = [request(engine, seed=seed, sampler="euler_a") for seed in range(8)]
    alone = [engine.submit(one).result(30) for one in asked]
    reached, go = hold(family)
    blocking = engine.submit(request(engine, num_inference_steps=1))
    assert reached.wait(30)
    futures = [engine.submit(one) for one in asked]
    tried = limit_rows(family, 5, error)
    go.set()
    blocking.result(30)
    for future, image in zip(futures, alone, strict=True):
        assert difference(future.result(30), image) <= 1
    failed = [rows for rows in tried if rows > 5]
    assert max(failed) == 16
    assert len(failed) < 5, "the cap was lowered: it is not tried again in each step"
    assert engine.counters.out_of_memory == len(failed)
    assert max(tried[-4:]) <= 4


def test_in_deterministic_mode_the_images_are_bit_identical(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, deterministic=True, bucket_rows=2, max_rows=16)
    family: Any = Spied(load_family(config))
    with Engine(family, config) as engine:
        requests = unlike_requests(config)
        alone = [engine.submit(one).result(60) for one in requests]
        count = 0

        def refuse(_: DenoisingBatch) -> None:
            nonlocal count
            count += 1
            if count % 7 == 0:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        family.before_predict = refuse
        mixed = [future.result(60) for future in [engine.submit(one) for one in requests]]
    assert [one.content for one in mixed] == [one.content for one in alone]
    assert engine.counters.out_of_memory > 0


def test_a_single_image_that_does_not_fit_fails_alone_and_by_its_size(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied

    def refuse(batch: DenoisingBatch) -> None:
        if batch.latents.shape[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    family.before_predict = refuse
    large = engine.submit(request(engine, width=128, height=96))
    small = engine.submit(request(engine))
    with pytest.raises(GenerationFailed, match=r"^\d+x\d+ pixels .*out of memory"):
        large.result(30)
    assert small.result(30)
    engine.check_health()
    assert engine.curve.cap((8, 8)) == 16


def test_another_size_keeps_its_cap(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied

    def run_large() -> None:
        reached, go = hold(family)
        first = engine.submit(request(engine, num_inference_steps=1))
        assert reached.wait(30)
        futures = [engine.submit(request(engine, width=128, height=128, seed=seed)) for seed in range(4)]
        family.before_predict = refuse
        go.set()
        [future.result(30) for future in (first, *futures)]

    def refuse(batch: DenoisingBatch) -> None:
        if batch.latents.shape[-1] > 8 and len(batch.latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    run_large()
    family.forget()
    futures = [engine.submit(request(engine, seed=seed)) for seed in range(4)]
    [future.result(30) for future in futures]
    assert max(len(batch.latents) for batch in family.batches) == 8


@pytest.mark.parametrize("place", ["encode", "decode"])
def test_the_vae_tries_again(spied: tuple[Engine, Spied], place: str) -> None:
    engine, family = spied
    asked = request(engine, image=as_file(photo()), strength=0.6)
    whole = engine.submit(asked).result(30)
    work = getattr(family.autoencoder, place)
    failures = [torch.OutOfMemoryError("CUDA out of memory.")]

    def refuse(given: torch.Tensor) -> Any:
        if failures:
            raise failures.pop()
        return work(given)

    setattr(family.autoencoder, place, refuse)
    assert engine.submit(asked).result(30).content == whole.content
    assert engine.counters.out_of_memory == 1


@pytest.mark.parametrize("place", ["encode", "decode"])
def test_an_image_too_large_for_the_vae_fails_by_its_size(spied: tuple[Engine, Spied], place: str) -> None:
    engine, family = spied

    def refuse(_: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    setattr(family.autoencoder, place, refuse)
    with pytest.raises(GenerationFailed, match=r"64x64 pixels"):
        engine.submit(request(engine, image=as_file(photo()), strength=0.6)).result(30)
    engine.check_health()


def test_the_decode_batch_becomes_smaller(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, decode_batch=4)
    family: Any = Spied(load_family(config))
    with Engine(family, config) as engine:
        asked = [request(engine, seed=seed) for seed in range(3)]
        alone = [engine.submit(one).result(30) for one in asked]
        decode = family.autoencoder.decode
        tried: list[int] = []

        def refuse(latents: torch.Tensor) -> torch.Tensor:
            tried.append(len(latents))
            if len(latents) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return decode(latents)

        family.autoencoder.decode = refuse
        for future, image in zip([engine.submit(one) for one in asked], alone, strict=True):
            assert difference(future.result(30), image) <= 1
    assert [rows for rows in tried if rows > 1] == [4, 2]


def test_prompts_are_encoded_in_smaller_batches(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    futures = [engine.submit(request(engine, num_inference_steps=1))]
    assert reached.wait(30)
    encode = family.encode

    def refuse(prompts: Any) -> Any:
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return encode(prompts)

    family.encode = refuse  # type: ignore[method-assign]
    futures += [engine.submit(request(engine, f"prompt {index}", guidance_scale=1.0)) for index in range(4)]
    go.set()
    assert all(future.result(30) for future in futures)


def test_what_the_failed_try_held_is_free_before_the_next(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    gc.disable()
    try:

        def refuse(_: DenoisingBatch) -> None:
            alive.extend(one() is not None for one in held)
            if not held:
                activation = torch.zeros(8)
                held.append(weakref.ref(activation))
                raise torch.OutOfMemoryError("CUDA out of memory.")

        family.before_predict = refuse
        assert engine.submit(request(engine)).result(30)
    finally:
        gc.enable()
    assert alive
    assert not any(alive)


def test_the_last_try_has_the_device_to_itself() -> None:
    turns = DeviceTurns()
    order: list[str] = []
    sharing, go = threading.Event(), threading.Event()

    def share() -> None:
        for _ in range(3):
            with turns.share():
                order.append("shared")
                sharing.set()
                assert go.wait(10)

    def take() -> None:
        with turns.alone():
            order.append("alone")

    sharer = threading.Thread(target=share)
    sharer.start()
    assert sharing.wait(10)
    taker = threading.Thread(target=take)
    taker.start()
    taker.join(0.1)
    assert order == ["shared"], "not while another works"
    go.set()
    sharer.join(10), taker.join(10)
    assert order == ["shared", "alone", "shared", "shared"], "it goes next, however soon the other comes back"


def test_a_cap_is_halved_and_grows_again_more_slowly_each_time() -> None:
    clock = Clock()
    caps = RowCaps(lambda size: 16 if size == (8, 8) else 4, clock)
    assert caps((8, 8)) == 16
    caps.lower((8, 8), 16)
    assert (caps((8, 8)), caps((4, 4))) == (8, 4)
    caps.lower((8, 8), 5)
    assert caps((8, 8)) == 2
    clock.now += 1200.0
    assert caps((8, 8)) == 4
    clock.now += 1200.0
    assert caps((8, 8)) == 8
    clock.now += 1e6
    assert caps((8, 8)) == 16, "never above what was measured"
    caps.lower((8, 8), 16)
    clock.now += 1200.0
    assert caps((8, 8)) == 8, "it waits twice as long after each failure"
    caps.lower((8, 8), 1)
    assert caps((8, 8)) == 1
