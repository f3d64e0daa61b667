"""A tiny decoder (TAESD) for pictures on the way: a few per cent of the VAE's work, at the picture's full size."""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny

from serve_app.errors import ModelLoadError
from serve_app.models.loading.checkpoint import load_part
from serve_app.models.loading.sources import find_part


class TinyDecoder:
    """Latents as the UNet makes them, to pixels; on the device it was loaded on."""

    def __init__(self, tiny: AutoencoderTiny) -> None:
        self._tiny: Any = tiny

    def paint(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (c, h, w) to a picture (H, W, 3) uint8."""
        decoded = self._tiny.decode(latents[None].to(self._tiny.device, self._tiny.dtype), return_dict=False)[0]
        colours = (decoded[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
        return (colours * 255).round().to(torch.uint8).cpu().numpy()


def load_tiny_decoder(source: str, channels: int, device: torch.device, dtype: torch.dtype) -> TinyDecoder:
    """A diffusers `AutoencoderTiny` for latents of so many channels; raises ModelLoadError."""
    folder = find_part("preview", source)
    if not folder.is_dir():
        raise ModelLoadError(
            f"preview: {folder} is a file: give the diffusers directory or hub id of an AutoencoderTiny"
        )
    tiny = load_part(AutoencoderTiny, folder, dtype, None, True)
    if tiny.config["latent_channels"] != channels:
        raise ModelLoadError(
            f"preview: {source} decodes {tiny.config['latent_channels']} latent channels, the model has {channels}"
        )
    return TinyDecoder(tiny.to(device).eval().requires_grad_(False))
