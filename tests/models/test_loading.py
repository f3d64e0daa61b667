"""Checkpoints that cannot be served are refused at start, with their path and the fix."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError
from serve_app.models.autoencoder import Autoencoder
from serve_app.models.load_family import load_family
from serve_app.models.text.chunks import tokenize
from tests.checkpoints import make_tokenizer
from tests.conftest import tiny_config


@pytest.fixture
def broken(tiny_sd: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(tiny_sd, tmp_path / "checkpoint"))


def refusal(source: Path | str, **options: object) -> str:
    config = ModelConfig.model_validate({**tiny_config(source).model_dump(), **options})
    with pytest.raises(ModelLoadError) as caught:
        load_family(config)
    return str(caught.value)


def test_a_missing_directory_is_named() -> None:
    assert "source: /no/such/model does not exist" in refusal("/no/such/model")
    assert "source: must be one of builtin:emoji, a path or a hub id, got builtin:photos" in refusal("builtin:photos")


def test_a_directory_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path}/model_index.json does not exist" in refusal(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    assert "must hold JSON" in refusal(tmp_path)


def test_an_unknown_pipeline_is_named_with_those_we_know(broken: Path) -> None:
    (broken / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert "_class_name must be one of StableDiffusionPipeline, " in refusal(broken)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(broken: Path, part: str) -> None:
    shutil.rmtree(broken / part)
    message = refusal(broken)
    assert "has no VAE: name one with vae:" in message if part == "vae" else str(broken / part) in message


def test_broken_weights_are_named(broken: Path) -> None:
    weights = next((broken / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{broken / 'unet'} cannot be loaded" in refusal(broken)


def test_pickled_weights_are_refused_unless_allowed(broken: Path) -> None:
    weights = next((broken / "unet").glob("*.safetensors"))
    torch.save(load_file(weights), broken / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    message = refusal(broken)
    assert "diffusion_pytorch_model.bin is pickled" in message
    assert "allow_pickle: true" in message
    config = tiny_config(broken).model_copy(update={"allow_pickle": True})
    assert load_family(config).autoencoder.latent_channels == 4


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt"])
@pytest.mark.parametrize("key", ["source", "vae", "loras.style", "embeddings.style"])
def test_other_formats_than_safetensors_are_refused_for_every_kind_of_file(
    tiny_sd: Path, tmp_path: Path, key: str, suffix: str
) -> None:
    """Before a byte of them is read: this one would fail to be unpickled."""
    (tmp_path / f"file{suffix}").write_bytes(b"cos\nsystem\n")
    path, (name, _, entry) = str(tmp_path / f"file{suffix}"), key.partition(".")
    asked = {"source": str(tiny_sd), name: {entry: path} if entry else path}
    assert refusal(**asked) == f"{key}: {path} must be a .safetensors file: convert it, as other formats could run code"


def test_a_device_that_is_not_there_is_named(tiny_sd: Path) -> None:
    name = "cuda" if torch.backends.mps.is_available() else "mps"
    assert f"device: torch finds no {name} device here; use one of auto, " in refusal(tiny_sd, device=name)


def test_prompts_are_cut_into_chunks_of_75_tokens() -> None:
    tokenizer = make_tokenizer()
    assert [len(chunk.ids) for chunk in tokenize(tokenizer, "x " * 75, False)] == [77]
    assert [len(chunk.ids) for chunk in tokenize(tokenizer, "x " * 76, False)] == [77, 77]
    short = tokenize(tokenizer, "x y", False)[0]
    assert short.ids == tokenizer("x y", padding="max_length", max_length=77).input_ids
    assert tokenize(tokenizer, "", False)[0].ids == tokenizer("", padding="max_length", max_length=77).input_ids


def test_large_images_are_decoded_in_tiles(tiny_sd: Path) -> None:
    whole = load_family(tiny_config(tiny_sd)).autoencoder
    vae: Any = AutoencoderKL.from_pretrained(tiny_sd / "vae").eval()
    tiled, sizes = Autoencoder(vae, tile=64), list[int]()
    vae.decoder.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[-1]))
    torch.manual_seed(0)
    small, large = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 16, 16)
    with torch.inference_mode():
        assert torch.equal(whole.decode(small), tiled.decode(small))
        decoded = tiled.decode(large)
        assert decoded.shape == (1, 128, 128, 3)
        assert max(sizes) == 8, "never more than a tile at once"
        configured = load_family(tiny_config(tiny_sd).model_copy(update={"vae_tile": 64})).autoencoder
        assert torch.equal(configured.decode(large), decoded)


def test_the_prediction_type_can_be_stated(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd).model_copy(update={"prediction_type": "v_prediction"})
    assert load_family(config).scheduler_config["prediction_type"] == "v_prediction"
