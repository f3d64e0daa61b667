"""The same request gives the same image, whatever shares the batch; and it is diffusers' image.

Tolerance: 1 of 255 in float32 on a CPU, where kernels depend on the batch size in the last bits; none in deterministic
mode, which is bit-identical.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from serve_app.builtin import BUILTIN_MODELS
from serve_app.engine.engine import Engine
from serve_app.models.load_family import load_family
from serve_app.requests.events import GeneratedImage
from serve_app.requests.request import GenerationRequest
from tests.compare_images import difference, draw_with_pipeline, load_pipeline, pixels
from tests.conftest import tiny_config
from tests.engine.tiny_requests import request, unlike_requests

FAMILIES = ("tiny_sd", "tiny_sd_v", "tiny_sdxl")


def draw_alone(engine: Engine, requests: Sequence[GenerationRequest]) -> list[GeneratedImage]:
    return [engine.submit(one).result(60) for one in requests]


def draw_together(engine: Engine, requests: Sequence[GenerationRequest]) -> list[GeneratedImage]:
    futures = [engine.submit(one) for one in requests]
    return [future.result(60) for future in futures]


def draw_staggered(engine: Engine, requests: Sequence[GenerationRequest]) -> list[GeneratedImage]:
    """Last first, and each arrives while those before it are under way."""
    futures = []
    for one in reversed(requests):
        futures.append(engine.submit(one))
        time.sleep(0.01)
    return [future.result(60) for future in reversed(futures)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_batch_draws_what_the_stock_pipeline_draws(family: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(family)
    config = tiny_config(folder)
    pipeline = load_pipeline(folder)
    with Engine(load_family(config), config) as engine:
        requests = unlike_requests(config)
        for one, image in zip(requests, draw_together(engine, requests), strict=True):
            theirs = draw_with_pipeline(pipeline, engine.family.scheduler_config, one)
            assert np.abs(pixels(image) - theirs).max() <= 1, one.sampling.sampler
            assert theirs.std() > 10, "an image, not a flat colour"


def test_the_builtin_model_draws_what_the_stock_pipeline_draws() -> None:
    folder = BUILTIN_MODELS["emoji"]
    config = tiny_config("builtin:emoji").model_copy(update={"native_size": 128})
    pipeline = load_pipeline(folder)
    samplers = ("ddim", "euler_a", "dpmpp_2m", "pndm")
    requests = [
        request(config, "red apple on a blue background", sampler=sampler, seed=seed, num_inference_steps=6)
        for seed, sampler in enumerate(samplers)
    ]
    with Engine(load_family(config), config) as engine:
        for one, image in zip(requests, draw_together(engine, requests), strict=True):
            theirs = draw_with_pipeline(pipeline, engine.family.scheduler_config, one)
            assert np.abs(pixels(image) - theirs).max() <= 1, one.sampling.sampler


@pytest.mark.parametrize("draw", [draw_together, draw_staggered])
def test_company_and_position_change_nothing(engine: Engine, draw: object) -> None:
    requests = unlike_requests(engine.config)
    alone = draw_alone(engine, requests)
    mixed = draw(engine, requests)  # type: ignore[operator]
    assert max(difference(a, b) for a, b in zip(alone, mixed, strict=True)) <= 1


@pytest.mark.parametrize("draw", [draw_together, draw_staggered])
def test_deterministic_mode_is_bit_identical(tiny_sd: Path, draw: object) -> None:
    config = tiny_config(tiny_sd, deterministic=True, bucket_rows=8)
    with Engine(load_family(config), config) as engine:
        requests = unlike_requests(config)
        alone = draw_alone(engine, requests)
        mixed = draw(engine, requests)  # type: ignore[operator]
    assert [a.content for a in alone] == [b.content for b in mixed]


def test_seeds_differ_and_repeat(engine: Engine) -> None:
    one, again, other = draw_alone(engine, [request(engine, seed=1), request(engine, seed=1), request(engine, seed=2)])
    assert one.content == again.content
    assert difference(one, other) > 20


def test_a_long_prompt_rides_with_a_short_one(engine: Engine) -> None:
    long = request(engine, "a red cat and a blue dog " * 8, seed=3)
    alone = draw_alone(engine, [long])[0]
    mixed = draw_together(engine, [request(engine, "x", seed=4), long, request(engine, "y", guidance_scale=1.0)])[1]
    assert difference(alone, mixed) <= 1
    cut = draw_alone(engine, [request(engine, "a red cat and a blue dog " * 2, seed=3)])[0]
    assert difference(alone, cut) > 5, "what is beyond 77 tokens counts"
