"""Pixels to latents and back, with an AutoencoderKL."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL


@dataclass(frozen=True, eq=False)
class LatentDistribution:
    """An image as the VAE encodes it: `mean` and `std` (c, h, w) float32, scaled as the UNet wants latents.

    `std` is None for latents that are known exactly: then there is nothing to sample.
    """

    mean: torch.Tensor
    std: torch.Tensor | None = None

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Latents (c, h, w), for unit normal `noise`."""
        return self.mean if self.std is None else self.mean + self.std * noise.to(self.mean.device)


class Autoencoder:
    """A VAE and its constants: `scale_factor` pixels to a latent pixel, and `latent_channels`.

    Args:
        vae: the module; its own dtype is used.
        tile: images wider or higher than this many pixels are encoded and decoded in overlapping tiles.
    """

    def __init__(self, vae: AutoencoderKL, tile: int | None = None) -> None:
        self._vae = vae
        self.scale_factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self.latent_channels = int(vae.config["latent_channels"])
        self._scaling: float = vae.config["scaling_factor"]
        if tile is not None:
            vae.enable_tiling()
            vae.tile_sample_min_size = tile
            vae.tile_latent_min_size = tile // self.scale_factor

    def encode(self, pixels: torch.Tensor) -> list[LatentDistribution]:
        """Images (n, H, W, 3) in -1..1 to their distributions. One by one, because the result depends on the batch."""
        images = pixels.permute(0, 3, 1, 2).to(self._vae.device, self._vae.dtype)
        posteriors = [self._vae.encode(image[None], return_dict=False)[0] for image in images]
        return [
            LatentDistribution(mean=self._scaling * one.mean[0].float(), std=self._scaling * one.std[0].float())
            for one in posteriors
        ]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (n, c, h, w) float32 to (n, H, W, 3) uint8 on the CPU, rounded as diffusers' image processor does."""
        scaled: Any = (latents / self._scaling).to(self._vae.dtype)
        decoded = self._vae.decode(scaled, return_dict=False)[0].float()
        pixels = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return (pixels * 255).round().to(torch.uint8).cpu()
