"""Classifier-free guidance over rows of which only some are guided."""

import math

import torch


def guide(
    noise_pred: torch.Tensor, guided: torch.Tensor, scale: torch.Tensor, rescale: torch.Tensor | None = None
) -> torch.Tensor:
    """Combine conditional rows with their unconditional ones: `uncond + scale * (cond - uncond)`.

    Ho & Salimans, Classifier-Free Diffusion Guidance (arXiv 2207.12598).

    Args:
        noise_pred: (rows + uncond rows, c, h, w): every row's conditional output, then the unconditional ones.
        guided: (uncond rows,) int64, the row that each unconditional row belongs to.
        scale: (uncond rows,) float32, each guided row's scale.
        rescale: (uncond rows,) float32, each guided row's share of `rescale_to`; None where no row has one.

    Returns:
        (rows, c, h, w); unguided rows are their conditional output, unchanged.
    """
    rows = len(noise_pred) - len(guided)
    cond, uncond = noise_pred[:rows], noise_pred[rows:]
    if not len(guided):
        return cond
    combined = uncond + scale.view(-1, 1, 1, 1) * (cond[guided] - uncond)
    if rescale is not None:
        combined = rescale_to(combined, cond[guided], rescale)
    return cond.index_copy(0, guided, combined)


def rescale_to(guided: torch.Tensor, cond: torch.Tensor, rescale: torch.Tensor) -> torch.Tensor:
    """Move each guided row's standard deviation towards its conditional output's, by the share `rescale` in 0..1.

    Lin et al., Common Diffusion Noise Schedules and Sample Steps are Flawed (arXiv 2305.08891), section 3.4.
    """
    spread = cond.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True)
    share = rescale.view(-1, 1, 1, 1)
    return share * guided * spread + (1 - share) * guided


def embed_guidance_scale(scale: torch.Tensor, width: int) -> torch.Tensor:
    """Sinusoidal embedding of `scale - 1`, (rows,) to (rows, width) float32, for UNets distilled with guidance.

    As diffusers' `get_guidance_scale_embedding`; Meng et al., On Distillation of Guided Diffusion Models (2210.03142).
    """
    half = width // 2
    steps = torch.arange(half, device=scale.device, dtype=torch.float32)
    frequencies = torch.exp(steps * -(math.log(10000.0) / (half - 1)))
    angles = (scale.float() - 1)[:, None] * 1000.0 * frequencies[None]
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))
