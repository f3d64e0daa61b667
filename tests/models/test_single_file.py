"""One `.safetensors` file in the original layout draws what the diffusers directory draws. Nothing from the hub."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from serve_app.config import ModelConfig
from serve_app.engine.engine import Engine
from serve_app.errors import ModelLoadError
from serve_app.models.load_family import load_family
from serve_app.models.loading.single_file import LAYOUTS, clip_tokenizer
from tests.compare_images import difference
from tests.conftest import tiny_config
from tests.engine.tiny_requests import request
from tests.original_layout import save_single_file


def draw(config: ModelConfig) -> bytes:
    with Engine(load_family(config), config) as engine:
        image = engine.submit(request(engine, "a red cat", negative_prompt="dog", seed=3)).result(60)
    return image  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", ["tiny_sd", "tiny_sdxl", "tiny_inpaint"])
def test_a_single_file_draws_what_its_directory_draws(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    file = save_single_file(folder, tmp_path / "model.safetensors")
    ours = tiny_config(file).model_copy(update={"config": str(folder)})
    assert difference(draw(tiny_config(folder)), draw(ours)) == 0  # type: ignore[arg-type]


def test_a_file_without_vae_takes_the_one_that_is_named(tiny_sd: Path, tmp_path: Path) -> None:
    file = save_single_file(tiny_sd, tmp_path / "model.safetensors", vae=False)
    config = tiny_config(file).model_copy(update={"config": str(tiny_sd)})
    with pytest.raises(ModelLoadError, match="has no VAE: name one with vae:"):
        load_family(config)
    named = config.model_copy(update={"vae": str(tiny_sd / "vae")})
    assert difference(draw(tiny_config(tiny_sd)), draw(named)) == 0  # type: ignore[arg-type]


def test_what_cannot_be_read_is_refused_by_name(tiny_sd: Path, tmp_path: Path) -> None:
    file = save_single_file(tiny_sd, tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError, match="does not fit stable-diffusion "):
        load_family(tiny_config(file))  # its shapes are not Stable Diffusion's
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelLoadError, match=r"cut\.safetensors cannot be read"):
        load_family(tiny_config(cut))
    alien = shutil.copy(next((tiny_sd / "unet").glob("*.safetensors")), tmp_path / "alien.safetensors")
    with pytest.raises(ModelLoadError, match="keys of no known family: name it with family:, one of stable-diffusion"):
        load_family(tiny_config(alien))
    pickled = tmp_path / "model.ckpt"
    pickled.write_bytes(b"x")
    with pytest.raises(ModelLoadError, match=r"model\.ckpt must be a \.safetensors file"):
        load_family(tiny_config(pickled))


def test_the_tokenizer_is_clips() -> None:
    tokenizer: CLIPTokenizer = clip_tokenizer("<|endoftext|>")
    assert len(tokenizer) == 49408
    known = [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("a photo of a cat").input_ids == known


@pytest.mark.parametrize(
    ("layout", "parameters"),
    [
        ("stable-diffusion", {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}),
        ("stable-diffusion-2", {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}),
        (
            "stable-diffusion-xl",
            {
                "unet": 2_567_463_684,
                "vae": 83_653_863,
                "text_encoder": 123_060_480,
                "text_encoder_2": 694_659_840,
            },
        ),
    ],
)
def test_the_layouts_describe_the_published_models(layout: str, parameters: dict[str, int]) -> None:
    found = {}
    for name in parameters:
        config = json.loads((LAYOUTS / layout / name / "config.json").read_text())
        with torch.device("meta"):
            if name in ("unet", "vae"):
                module = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[name].from_config(config)
            else:
                kind = CLIPTextModel if name == "text_encoder" else CLIPTextModelWithProjection
                module = kind(CLIPTextConfig.from_dict(config))
        found[name] = sum(weight.numel() for weight in module.parameters())
    assert found == parameters
