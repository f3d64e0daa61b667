"""What runs the denoiser: one method, so that torch eager, compiled torch and other runtimes are interchangeable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers import UNet2DConditionModel


@dataclass(frozen=True)
class UNetInputs:
    """The tensors of one UNet call; `added` is SDXL's `added_cond_kwargs`, empty elsewhere."""

    latents: torch.Tensor
    timesteps: torch.Tensor
    prompt_embeds: torch.Tensor
    prompt_mask: torch.Tensor | None
    timestep_cond: torch.Tensor | None = None
    added: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Executor(Protocol):
    """Runs a UNet."""

    def run(self, inputs: UNetInputs, plain: bool) -> torch.Tensor:
        """The model output, (rows, c, h, w) in the latents' dtype; `plain` where no row's LoRA hooks the layers."""
        ...


class EagerExecutor:
    """Plain torch, operator by operator."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet: Any = unet
        self._dtype = unet.dtype

    def run(self, inputs: UNetInputs, plain: bool) -> torch.Tensor:
        """See `Executor`."""
        return self._call(self._unet, inputs)

    def _call(self, unet: Any, inputs: UNetInputs) -> torch.Tensor:
        output = unet(
            inputs.latents.to(self._dtype),
            inputs.timesteps,
            encoder_hidden_states=inputs.prompt_embeds,
            encoder_attention_mask=inputs.prompt_mask,
            timestep_cond=None if inputs.timestep_cond is None else inputs.timestep_cond.to(self._dtype),
            added_cond_kwargs=dict(inputs.added),
            return_dict=False,
        )[0]
        return output.to(inputs.latents.dtype)


class CompiledExecutor(EagerExecutor):
    """torch.compile, one graph for each padded row count; rows with LoRAs run eagerly, their hooks are Python."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__(unet)
        self._compiled: Any = torch.compile(unet, dynamic=False)

    def run(self, inputs: UNetInputs, plain: bool) -> torch.Tensor:
        """See `Executor`."""
        return self._call(self._compiled if plain else self._unet, inputs)
