"""Property: a request gets the image that it gets alone, whichever requests share the engine."""

import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.engine.engine import Engine
from serve_app.requests.params import HiresParams
from serve_app.requests.samplers import SAMPLERS
from tests.compare_images import difference
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, half_mask, photo

FEATURES: list[dict[str, Any]] = [
    {},
    {"image": as_file(photo()), "strength": 0.6},
    {"image": as_file(photo(seed=1)), "mask": as_file(half_mask()), "strength": 1.0},
    {"image": as_file(photo(seed=2)), "mask": as_file(half_mask()), "strength": 0.7},
    {"guidance_rescale": 0.5},
    {"guidance_start": 0.3, "guidance_end": 0.8},
    {"subseed": 4, "subseed_strength": 0.4},
    {"clip_skip": 1},
    {"hires": HiresParams(scale=1.5, strength=0.6)},
    {"hires": HiresParams(scale=1.5, strength=0.5, upscaler="latent")},
]

PARAMS = st.builds(
    lambda feature, **common: {**common, **feature},
    feature=st.sampled_from(FEATURES),
    prompt=st.sampled_from(["x", "a (red:1.4) cat", "one BREAK two", "a long prompt, " * 7]),
    negative_prompt=st.sampled_from(["", "dog"]),
    guidance_scale=st.sampled_from([1.0, 3.0, 9.0]),
    sampler=st.sampled_from(sorted(SAMPLERS)),
    num_inference_steps=st.integers(3, 6),
    seed=st.integers(0, 9),
    width=st.sampled_from([48, 64]),
    height=st.sampled_from([64, 40]),
)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(all_params=st.lists(PARAMS, min_size=2, max_size=6), pauses=st.lists(st.integers(0, 15), min_size=6, max_size=6))
def test_an_image_does_not_depend_on_the_other_requests(
    engine: Engine, all_params: list[dict[str, Any]], pauses: list[int]
) -> None:
    requests = [request(engine, **params) for params in all_params]
    alone = [engine.submit(one).result(60) for one in requests]
    futures = []
    for one, pause in zip(requests, pauses, strict=False):
        futures.append(engine.submit(one))
        time.sleep(pause / 1000)
    for one, solo, future in zip(requests, alone, futures, strict=True):
        assert difference(solo, future.result(60)) <= 1, one
    assert engine.counters.rows_in_flight == 0
