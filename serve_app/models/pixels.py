"""From latents to pixels with an AutoencoderKL."""

import torch
from diffusers import AutoencoderKL


def vae_scale_factor(vae: AutoencoderKL) -> int:
    """Pixels per latent, along one side: 8 for every Stable Diffusion."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def decode_pixels(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Latents (n, c, h, w) float32 to (n, H, W, 3) uint8 on the CPU, rounded as diffusers' image processor does."""
    scaled = (latents / vae.config["scaling_factor"]).to(vae.dtype)
    decoded = vae.decode(scaled, return_dict=False)[0].float()
    pixels = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    return (pixels * 255).round().to(torch.uint8).cpu()
