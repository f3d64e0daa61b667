"""Previews of unfinished images: one linear map from latents to colours, or a tiny decoder (TAESD)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional as F

from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError
from serve_app.models.autoencoder import Autoencoder
from serve_app.models.cpu_threads import claim_cores
from serve_app.models.loading.devices import choose_dtype
from serve_app.models.loading.diffusers_directory import load_part
from serve_app.models.loading.sources import find_part
from serve_app.models.model_family import ModelFamily

SAMPLES = 8
GRID = 8


class PreviewDecoder(Protocol):
    """Decodes the latents of unfinished images, for less work than the VAE."""

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (c, h, w) to an image (H, W, 3) uint8; H and W are the decoder's choice."""
        ...


@dataclass(frozen=True)
class LinearPreview:
    """Colours (0..1) are `latents @ weight + bias`, one for each latent pixel: `weight` (c, 3), `bias` (3,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (c, h, w) to an image (h, w, 3) uint8."""
        colours = torch.einsum("chw,cd->hwd", latents.float().cpu(), self.weight) + self.bias
        return (colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


class TinyDecoder:
    """An AutoencoderTiny on its device: a few percent of the VAE's work, at the image's full size."""

    def __init__(self, tiny: AutoencoderTiny) -> None:
        self._tiny: Any = tiny

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (c, h, w) to an image (H, W, 3) uint8."""
        decoded = self._tiny.decode(latents[None].to(self._tiny.device, self._tiny.dtype), return_dict=False)[0]
        colours = (decoded[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
        return (colours * 255).round().to(torch.uint8).cpu().numpy()


def choose_preview_decoder(family: ModelFamily, config: ModelConfig) -> PreviewDecoder:
    """The tiny decoder that `preview:` names, else a linear map fitted to the VAE. Raises ModelLoadError.

    On a CPU it leaves the calling thread with one core: call it in a thread of its own (`run_apart`).
    """
    if config.preview is None:
        # Many small operators: a second thread only waits, and where the machine is busy it waits for seconds.
        claim_cores(family.device, 1)
        return fit_preview(family.autoencoder, family.device)
    channels = family.autoencoder.latent_channels
    folder = find_part("preview", config.preview, config.preview_revision)
    return load_tiny_decoder(folder, channels, family.device, choose_dtype(config, family.device))


@torch.inference_mode()
def fit_preview(autoencoder: Autoencoder, device: torch.device) -> LinearPreview:
    """A least squares fit to what the VAE decodes from smooth random latents, averaged over each latent pixel."""
    coarse = torch.randn(SAMPLES, autoencoder.latent_channels, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = F.interpolate(coarse, size=(GRID, GRID), mode="bilinear")
    images = torch.cat([autoencoder.decode(one[None].to(device)) for one in latents]).float() / 255
    colours = F.avg_pool2d(images.permute(0, 3, 1, 2), autoencoder.scale_factor)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, autoencoder.latent_channels)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, colours.permute(0, 2, 3, 1).reshape(-1, 3)).solution
    return LinearPreview(weight=solution[:-1].clone(), bias=solution[-1].clone())


def load_tiny_decoder(folder: Path, channels: int, device: torch.device, dtype: torch.dtype) -> TinyDecoder:
    """The diffusers `AutoencoderTiny` in `folder`, for latents of `channels` channels. Raises ModelLoadError."""
    if not folder.is_dir():
        raise ModelLoadError(
            f"preview: must be the diffusers directory or hub id of an AutoencoderTiny, and {folder} is a file"
        )
    tiny = load_part(AutoencoderTiny, folder, dtype, None, True)
    if tiny.config["latent_channels"] != channels:
        raise ModelLoadError(
            f"preview: must decode the model's {channels} latent channels, "
            f"and {folder} decodes {tiny.config['latent_channels']}"
        )
    return TinyDecoder(tiny.to(device).eval().requires_grad_(False))
