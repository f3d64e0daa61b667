"""Previews, by a tiny decoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor

from serve_app.config import ModelConfig
from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.errors import ModelLoadError
from serve_app.models.preview_decoder import load_tiny_decoder
from serve_app.requests.events import Progress
from serve_app.requests.request import CallerContext
from tests.compare_images import pixels
from tests.conftest import tiny_config
from tests.engine.tiny_requests import request

CPU = torch.device("cpu")


def save_tiny(folder: Path, channels: int = 4) -> str:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    blocks: dict[str, Any] = {"num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4}
    AutoencoderTiny(**sizes, **blocks, latent_channels=channels).save_pretrained(folder)
    return str(folder)


def draw_previews(config: ModelConfig) -> tuple[Sequence[np.ndarray], np.ndarray]:
    """Two previews and the image they belong to."""
    told: list[Progress] = []
    with Engine.load(config) as engine:
        asked = request(engine, num_inference_steps=8)
        image = engine.submit(asked, CallerContext(previews=2), Callbacks(on_progress=told.append)).result()
    return [pixels(one.preview) for one in told if one.preview], pixels(image)


def test_a_configured_decoder_draws_the_previews_and_not_the_image(tiny_sd: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_sd)
    mapped, plain = draw_previews(config)
    decoded, image = draw_previews(config.model_copy(update={"preview": save_tiny(tmp_path)}))
    assert [preview.shape for preview in decoded] == [(64, 64, 3)] * 2
    assert np.array_equal(image, plain)
    assert not any(np.array_equal(one, other) for one, other in zip(mapped, decoded, strict=True))


def test_the_decoder_decodes_as_diffusers_does(tmp_path: Path) -> None:
    source = save_tiny(tmp_path)
    latents = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(1))
    decoded_here = load_tiny_decoder(Path(source), 4, CPU, torch.float32).decode(latents)
    with torch.inference_mode():
        tiny: Any = AutoencoderTiny.from_pretrained(source)
        decoded = tiny.decode(latents[None]).sample
    expected: Any = VaeImageProcessor().postprocess(decoded, output_type="np")
    assert np.abs(decoded_here - 255 * expected[0]).max() <= 0.5001


def test_what_is_no_fitting_decoder_is_refused_at_start(tmp_path: Path) -> None:
    source = save_tiny(tmp_path, channels=16)
    with pytest.raises(ModelLoadError, match=r"preview: .* the model's 4 latent channels, and .* decodes 16"):
        load_tiny_decoder(Path(source), 4, CPU, torch.float32)
    (tmp_path / "one.safetensors").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"preview: .*diffusers directory .*one\.safetensors is a file"):
        load_tiny_decoder(tmp_path / "one.safetensors", 4, CPU, torch.float32)
