"""What a caller may ask, and how a refusal names field, value and limit."""

from typing import Any

import pytest

from serve_app.config import ModelConfig
from serve_app.errors import InvalidRequest
from serve_app.requests.params import GenerationParams, HiresParams
from serve_app.requests.request import GenerationRequest, LoraChoice
from serve_app.requests.resolve import MAX_SEED, resolve, resolve_all
from tests.engine.samples import as_file, half_mask, photo

CONFIG = ModelConfig.model_validate(
    {"source": "builtin:emoji", "native_size": 128, "loras": {"pop": "x.safetensors"}, "limits": {"max_images": 4}}
)
IMAGE, MASK = as_file(photo(200, 100)), as_file(half_mask(200, 100))


def asked(**wish: Any) -> GenerationRequest:
    return resolve(GenerationParams(**{"prompt": "x", **wish}), "m", CONFIG)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"guidance_rescale": 1.5}, "guidance_rescale: must be between 0 and 1, got 1.5"),
        ({"guidance_start": 0.6, "guidance_end": 0.5}, "guidance_end: must be between 0.6 and 1, got 0.5"),
        ({"subseed_strength": -1.0}, "subseed_strength: must be between 0 and 1"),
        ({"subseed": -1, "subseed_strength": 0.5}, "subseed: must be between 0 and"),
        ({"clip_skip": 12}, "clip_skip: must be between 0 and 11"),
        ({"quality": 0}, "quality: must be between 1 and 100"),
        ({"strength": 0.5}, "strength: must come with an image"),
        ({"mask": MASK}, "mask: must come with an image"),
        ({"image": IMAGE, "strength": 0.01}, "strength: must leave at least one of 25 steps: 0.04 or more, got 0.01"),
        ({"image": IMAGE, "strength": 1.01}, "strength: must be between 0 and 1"),
        ({"image": IMAGE, "mask": as_file(half_mask())}, "mask: must have the image's size, 200x100, got '64x64'"),
        ({"image": IMAGE, "hires": HiresParams()}, "hires: must be left out where an image is given"),
        ({"image": IMAGE, "resize_mode": "tile"}, "resize_mode: must be one of stretch, crop, fill"),
        ({"hires": HiresParams(9.0)}, "hires.scale: must be between 1 and 8"),
        ({"hires": HiresParams(width=100)}, "hires.width: must be a multiple of 8"),
        ({"hires": HiresParams(width=0)}, "hires.width: must be between 64 and 2048"),
        ({"hires": HiresParams(strength=0.01)}, "hires.strength: must leave at least one"),
        ({"hires": HiresParams(upscaler="x")}, "hires.upscaler: must be one of lanczos, latent"),  # type: ignore[arg-type]
        ({"prompt": "<lora:pop:much>"}, "prompt: must have a number for a weight"),
        ({"prompt": "<lora:pop:9>"}, "loras.pop.weight: must be between -4 and 4"),
        ({"loras": (LoraChoice("pop"),) * 5}, "loras: must be between 0 and 4, got 5"),
        ({"num_images": 2}, "num_images: must be 1 here"),
        ({"width": 0}, "width: must be between 64 and 2048, got 0"),
    ],
)
def test_a_wish_out_of_its_limits_is_refused(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**wish)
    assert str(caught.value).startswith(message)


def test_an_image_gives_its_size_within_the_native_area_and_needs_no_prompt() -> None:
    one = asked(prompt="", image=IMAGE)
    assert (one.output.width, one.output.height) == (one.width, one.height) == (176, 88)
    assert one.init is not None
    assert (one.init.picture.width, one.init.strength, one.skipped_steps) == (176, 0.8, 5)
    large = asked(image=IMAGE, width=256, height=256)
    assert (large.output.width, large.width) == (256, 128), "drawn at the native area, resized after"


def test_a_mask_means_full_strength() -> None:
    init = asked(image=IMAGE, mask=MASK).init
    assert init is not None
    assert init.strength == 1.0
    assert init.mask is not None


def test_hires_is_the_files_size() -> None:
    one = asked(hires=HiresParams(1.5))
    assert (one.width, one.output.width) == (128, 192)
    assert one.hires is not None
    assert one.hires.num_inference_steps == one.num_inference_steps


def test_lora_tags_leave_the_prompt() -> None:
    one = asked(prompt="a <lora:pop:0.5>cat<lora:pop>")
    assert (one.prompt, one.loras) == ("a cat", (LoraChoice("pop", 0.5), LoraChoice("pop", 1.0)))
    assert asked(prompt="a <lora:pop:0.5>", prompt_syntax="plain").prompt == "a <lora:pop:0.5>"


def test_images_of_one_wish_count_their_seeds() -> None:
    assert [one.seed for one in resolve_all(GenerationParams("x", seed=5, num_images=3), "m", CONFIG)] == [5, 6, 7]
    varied = resolve_all(GenerationParams("x", seed=5, subseed=9, subseed_strength=0.2, num_images=2), "m", CONFIG)
    assert [(one.seed, one.variation.seed if one.variation else 0) for one in varied] == [(5, 9), (5, 10)]
    with pytest.raises(InvalidRequest, match="num_images: must be between 1 and 4"):
        resolve_all(GenerationParams("x", num_images=5), "m", CONFIG)
    with pytest.raises(InvalidRequest, match=f"seed: must be between 0 and {MAX_SEED - 1}"):
        resolve_all(GenerationParams("x", seed=MAX_SEED, num_images=2), "m", CONFIG)
