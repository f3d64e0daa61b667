"""Classifier-free guidance over rows of which only some are guided."""

import torch


def guide(noise_pred: torch.Tensor, guided: torch.Tensor, guidance_scale: torch.Tensor) -> torch.Tensor:
    """Combine conditional rows with their unconditional twins: `uncond + scale * (cond - uncond)`.

    Ho & Salimans, Classifier-Free Diffusion Guidance (arXiv 2207.12598).

    Args:
        noise_pred: (rows + twins, c, h, w): every row's conditional output, then the unconditional ones.
        guided: (twins,) int64, the row that each twin belongs to.
        guidance_scale: (twins,) float32, each guided row's scale.

    Returns:
        (rows, c, h, w); unguided rows are their conditional output, unchanged.
    """
    rows = len(noise_pred) - len(guided)
    cond, uncond = noise_pred[:rows], noise_pred[rows:]
    if not len(guided):
        return cond
    twins = uncond + guidance_scale.view(-1, 1, 1, 1) * (cond[guided] - uncond)
    return cond.index_copy(0, guided, twins)
