"""The built-in model: what is shipped, and that it obeys."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from serve_app.builtin import BUILTIN_MODELS
from serve_app.builtin.training.captions import COLOUR_NAMES, held_out, on_background, training_pairs
from serve_app.builtin.training.icons import Icon
from serve_app.builtin.training.train_state import TrainingSchedule, train
from serve_app.config import EngineConfig, ModelConfig
from serve_app.engine.engine import Engine
from serve_app.errors import InvalidRequest
from serve_app.requests.capabilities import Limits, ModelCapabilities
from serve_app.requests.events import GeneratedImage
from serve_app.requests.params import GenerationParams, SamplingParams
from serve_app.requests.resolve import resolve
from tests.compare_images import difference, named_background

FOLDER = BUILTIN_MODELS["emoji"]


@pytest.fixture(scope="module")
def emoji() -> Iterator[Engine]:
    config = ModelConfig(
        source="builtin:emoji",
        native_size=128,
        cpu_threads=1,
        engine=EngineConfig(max_rows=16),
    )
    with Engine.load(config) as engine:
        yield engine


def with_defaults(engine: Engine) -> ModelCapabilities:
    defaults = SamplingParams(guidance_scale=3.0, num_inference_steps=10)
    return engine.capabilities.with_settings(defaults, Limits(), ai_mark=True)


def draw(engine: Engine, *all_params: GenerationParams) -> list[GeneratedImage]:
    futures = [engine.submit(resolve(params, "emoji", with_defaults(engine))[0]) for params in all_params]
    return [future.result() for future in futures]


def test_it_is_small_safe_and_plain() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}
    pipeline = StableDiffusionPipeline.from_pretrained(str(FOLDER), local_files_only=True)
    assert type(pipeline.text_encoder).__name__ == "CLIPTextModel"
    assert type(pipeline.unet).__name__ == "UNet2DConditionModel"
    assert pipeline.vae.config["latent_channels"] == 4
    assert pipeline.vae_scale_factor == 8
    assert pipeline.text_encoder.dtype in (torch.float16, torch.float32)


def test_the_background_is_the_asked_one(emoji: Engine) -> None:
    subjects = ("red apple", "rocket", "cat face") * 4
    prompts = [on_background(subject, colour) for subject, colour in zip(subjects, COLOUR_NAMES, strict=True)]
    images = draw(emoji, *(GenerationParams(prompt=prompt, seed=1) for prompt in prompts))
    right = sum(named_background(image) == colour for image, colour in zip(images, COLOUR_NAMES, strict=True))
    assert right >= 0.9 * len(COLOUR_NAMES)


def test_at_least_one_layer_of_its_text_encoder_is_used(emoji: Engine) -> None:
    with pytest.raises(InvalidRequest, match="clip_skip: must be between 0 and 1, got 2"):
        draw(emoji, GenerationParams(prompt="red apple", clip_skip=2))
    (image,) = draw(emoji, GenerationParams(prompt="red apple", clip_skip=1, num_inference_steps=2))
    assert image.width == 128


def test_it_answers_to_seed_guidance_and_negative_prompt(emoji: Engine) -> None:
    base = {"prompt": "red apple", "seed": 3}
    plain, seed, guidance, negative = draw(
        emoji,
        GenerationParams(**base),
        GenerationParams(prompt="red apple", seed=4),
        GenerationParams(**base, guidance_scale=1.0),
        GenerationParams(**base, negative_prompt="red"),
    )
    for other in (seed, guidance, negative):
        assert difference(plain, other) > 40


def test_pairs_kept_from_training_are_not_trained_on() -> None:
    icons = [Icon(name, (), "") for name in ("red apple", "rocket", "pizza", "cat face")]
    pairs = {(icons[row].name, COLOUR_NAMES[column]) for row, column in training_pairs(icons)}
    kept = {(icon.name, colour) for icon in icons for colour in COLOUR_NAMES if held_out(icon.name, colour)}
    assert kept
    assert not pairs & kept
    assert len(pairs) + len(kept) == len(icons) * len(COLOUR_NAMES)


class Constant(TrainingSchedule):
    """A rate that does not depend on where the run stops."""

    def rate(self, step: int) -> float:
        return 0.01


def test_training_resumes_where_it_stopped(tmp_path: Path) -> None:
    def run(path: Path, *stops: int) -> torch.Tensor:
        for steps in stops:
            torch.manual_seed(0)
            line = torch.nn.Linear(2, 1)

            def loss_at(step: int, generator: torch.Generator, model: torch.nn.Module = line) -> torch.Tensor:
                return (model(torch.randn(8, 2, generator=generator)) - step % 3).square().mean()

            train(torch.nn.ModuleDict({"line": line}), loss_at, Constant(steps, 0.01, checkpoint_every=2), path)
        return line.weight.detach()

    straight = run(tmp_path / "a.pt", 8)
    assert torch.equal(straight, run(tmp_path / "b.pt", 4, 8))
    assert not torch.equal(straight, run(tmp_path / "c.pt", 4))
