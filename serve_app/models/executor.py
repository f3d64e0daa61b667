"""What runs the denoiser: one method, so that torch eager, compiled torch and other runtimes are interchangeable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from diffusers import UNet2DConditionModel


@dataclass(frozen=True)
class UNetInputs:
    """The tensors of one UNet call; `added` is SDXL's `added_cond_kwargs`, empty elsewhere."""

    latents: torch.Tensor
    timesteps: torch.Tensor
    prompt_embeds: torch.Tensor
    prompt_mask: torch.Tensor | None
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Executor(Protocol):
    """Runs a UNet."""

    def run(self, inputs: UNetInputs) -> torch.Tensor:
        """The model output, (rows, c, h, w) in the latents' dtype."""
        ...


class EagerExecutor:
    """Plain torch, operator by operator."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet = unet
        self._dtype = unet.dtype

    def run(self, inputs: UNetInputs) -> torch.Tensor:
        """See `Executor`."""
        output = self._unet(
            inputs.latents.to(self._dtype),
            inputs.timesteps,
            encoder_hidden_states=inputs.prompt_embeds,
            encoder_attention_mask=inputs.prompt_mask,
            added_cond_kwargs=dict(inputs.added),
            return_dict=False,
        )[0]
        return output.to(inputs.latents.dtype)
