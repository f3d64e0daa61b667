"""Pictures on the way, nearly for free: one linear map from latents to colours, fitted to the VAE when it is loaded."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from serve_app.models.autoencoder import Autoencoder

SAMPLES = 8
GRID = 8


@dataclass(frozen=True)
class PreviewMap:
    """Colours (0..1) are `latents @ weight + bias`, pixel by latent pixel: `weight` (c, 3), `bias` (3,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    def paint(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (c, h, w) to a small picture (h, w, 3) uint8."""
        colours = torch.einsum("chw,cd->hwd", latents.float().cpu(), self.weight) + self.bias
        return (colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


@torch.inference_mode()
def fit_preview(autoencoder: Autoencoder, device: torch.device) -> PreviewMap:
    """Least squares over what the VAE makes of soft random latents, averaged to one colour for each latent pixel."""
    coarse = torch.randn(SAMPLES, autoencoder.latent_channels, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = F.interpolate(coarse, size=(GRID, GRID), mode="bilinear")
    pictures = torch.cat([autoencoder.decode(one[None].to(device)) for one in latents]).float() / 255
    colours = F.avg_pool2d(pictures.permute(0, 3, 1, 2), autoencoder.scale_factor)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, autoencoder.latent_channels)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, colours.permute(0, 2, 3, 1).reshape(-1, 3)).solution
    return PreviewMap(solution[:-1].clone(), solution[-1].clone())
