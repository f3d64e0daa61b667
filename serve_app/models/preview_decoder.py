"""Pictures on the way: nearly for free by one linear map from latents to colours, or by a tiny decoder."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from serve_app.config import ModelConfig
from serve_app.models.autoencoder import Autoencoder
from serve_app.models.families.model_family import ModelFamily
from serve_app.models.loading.load_family import choose_dtype
from serve_app.models.tiny_decoder import load_tiny_decoder

SAMPLES = 8
GRID = 8


class PreviewDecoder(Protocol):
    """Makes pictures of latents that are not worth a VAE."""

    def paint(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (c, h, w) to a picture (H, W, 3) uint8, of any size."""
        ...


@dataclass(frozen=True)
class LinearPreview:
    """Colours (0..1) are `latents @ weight + bias`, pixel by latent pixel: `weight` (c, 3), `bias` (3,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def paint(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (c, h, w) to a small picture (h, w, 3) uint8."""
        colours = torch.einsum("chw,cd->hwd", latents.float().cpu(), self.weight) + self.bias
        return (colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def choose_preview_decoder(family: ModelFamily, config: ModelConfig) -> PreviewDecoder:
    """The tiny decoder that `preview:` names, else a linear map fitted to the VAE; raises ModelLoadError."""
    if config.preview is None:
        return fit_preview(family.autoencoder, family.device)
    channels = family.autoencoder.latent_channels
    return load_tiny_decoder(config.preview, channels, family.device, choose_dtype(config, family.device))


@torch.inference_mode()
def fit_preview(autoencoder: Autoencoder, device: torch.device) -> LinearPreview:
    """Least squares over what the VAE makes of soft random latents, averaged to one colour for each latent pixel."""
    coarse = torch.randn(SAMPLES, autoencoder.latent_channels, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = F.interpolate(coarse, size=(GRID, GRID), mode="bilinear")
    pictures = torch.cat([autoencoder.decode(one[None].to(device)) for one in latents]).float() / 255
    colours = F.avg_pool2d(pictures.permute(0, 3, 1, 2), autoencoder.scale_factor)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, autoencoder.latent_channels)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, colours.permute(0, 2, 3, 1).reshape(-1, 3)).solution
    return LinearPreview(solution[:-1].clone(), solution[-1].clone())
