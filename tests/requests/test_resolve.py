"""What a caller may ask, and how a refusal names field, value and limit."""

from typing import Any

import pytest

from serve_app.errors import InvalidRequest
from serve_app.requests.capabilities import Limits, ModelCapabilities
from serve_app.requests.params import GenerationParams, HiresParams, LoraWeight
from serve_app.requests.request import GenerationRequest
from serve_app.requests.resolve import MAX_SEED, resolve
from tests.sample_images import as_file, half_mask, photo

MODEL = ModelCapabilities(native_size=128, loras=("pop",), limits=Limits(max_images=4))
IMAGE, MASK = as_file(photo(200, 100)), as_file(half_mask(200, 100))


def asked(**params: Any) -> GenerationRequest:
    return resolve(GenerationParams.checked(**{"prompt": "x", **params}), "m", MODEL)[0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"guidance_rescale": 1.5}, "guidance_rescale: must be at most 1, got 1.5"),
        ({"guidance_start": 0.6, "guidance_end": 0.5}, "guidance_end: must be between 0.6 and 1, got 0.5"),
        ({"subseed_strength": -1.0}, "subseed_strength: must be at least 0, got -1.0"),
        ({"subseed": -1, "subseed_strength": 0.5}, "subseed: must be between 0 and"),
        ({"clip_skip": 12}, "clip_skip: must be between 0 and 11"),
        ({"quality": 0}, "quality: must be at least 1, got 0"),
        ({"strength": 0.5}, "strength: must be left out of a request without an image"),
        ({"mask": MASK}, "mask: must be left out of a request without an image"),
        ({"image": IMAGE, "strength": 0.01}, "strength: must be at least 0.04, to leave one of 25 steps, got 0.01"),
        ({"image": IMAGE, "strength": 1.01}, "strength: must be between 0 and 1"),
        ({"image": IMAGE, "mask": as_file(half_mask())}, "mask: must have the image's size, 200x100, got '64x64'"),
        ({"image": IMAGE, "hires": {}}, "hires: must be left out of a request that has an image, got 'given'"),
        ({"image": IMAGE, "resize_mode": "tile"}, "resize_mode: must be 'stretch', 'crop' or 'fill', got 'tile'"),
        ({"hires": {"scale": 9.0}}, "hires.scale: must be at most 8, got 9.0"),
        ({"hires": HiresParams(width=100)}, "hires.width: must be a multiple of 8"),
        ({"hires": HiresParams(width=0)}, "hires.width: must be between 64 and 2048"),
        ({"hires": {"strength": 0.01}}, "hires.strength: must be at least 0.04, to leave one of 25 steps"),
        ({"hires": {"upscaler": "x"}}, "hires.upscaler: must be 'lanczos' or 'latent', got 'x'"),
        ({"prompt": "<lora:pop:much>"}, "prompt: must have a number as the LoRA's weight"),
        ({"prompt": "<lora:pop:9>"}, "loras.pop.weight: must be between -4 and 4"),
        ({"loras": [LoraWeight(name="pop")] * 5}, "loras: must be between 0 and 4, got 5"),
        ({"num_images": 5}, "num_images: must be between 1 and 4, got 5"),
        (
            {"sampler": "ddim", "scheduler": "karras"},
            "scheduler: must be one of automatic, linear, sgm_uniform for sampler",
        ),
        ({"sampler": "dpm_adaptive"}, "sampler: must be one of euler, euler_a"),
        ({"width": 0}, "width: must be between 64 and 2048, got 0"),
    ],
)
def test_a_parameter_out_of_its_limits_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**params)
    assert str(caught.value).startswith(message)


def test_an_image_gives_its_size_within_the_native_area_and_needs_no_prompt() -> None:
    one = asked(prompt="", image=IMAGE)
    assert (one.output.width, one.output.height) == (one.width, one.height) == (176, 88)
    assert one.init is not None
    assert (one.init.raster.width, one.init.strength, one.skipped_steps) == (176, 0.8, 5)
    large = asked(image=IMAGE, width=256, height=256)
    assert (large.output.width, large.width) == (256, 128), "drawn at the native area, resized after"


def test_a_mask_means_full_strength() -> None:
    init = asked(image=IMAGE, mask=MASK).init
    assert init is not None
    assert init.strength == 1.0
    assert init.mask is not None


def test_hires_is_the_files_size() -> None:
    one = asked(hires=HiresParams(scale=1.5))
    assert (one.width, one.output.width) == (128, 192)
    assert one.hires is not None
    assert one.hires.num_inference_steps == one.sampling.num_inference_steps


def test_lora_tags_leave_the_prompt() -> None:
    one = asked(prompt="a <lora:pop:0.5>cat<lora:pop>")
    assert (one.prompt, one.loras) == (
        "a cat",
        (LoraWeight(name="pop", weight=0.5), LoraWeight(name="pop", weight=1.0)),
    )
    assert asked(prompt="a <lora:pop:0.5>", prompt_syntax="plain").prompt == "a <lora:pop:0.5>"


def test_images_of_one_request_count_their_seeds() -> None:
    assert [one.seed for one in resolve(GenerationParams(prompt="x", seed=5, num_images=3), "m", MODEL)] == [
        5,
        6,
        7,
    ]
    varied = resolve(GenerationParams(prompt="x", seed=5, subseed=9, subseed_strength=0.2, num_images=2), "m", MODEL)
    assert [(one.seed, one.variation.seed if one.variation else 0) for one in varied] == [(5, 9), (5, 10)]
    with pytest.raises(InvalidRequest, match="num_images: must be between 1 and 4"):
        resolve(GenerationParams(prompt="x", num_images=5), "m", MODEL)
    with pytest.raises(InvalidRequest, match=f"seed: must be between 0 and {MAX_SEED - 1}"):
        resolve(GenerationParams(prompt="x", seed=MAX_SEED, num_images=2), "m", MODEL)
