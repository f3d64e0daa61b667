"""What runs the denoiser: one method, so that eager torch, compiled torch and other runtimes are interchangeable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers import UNet2DConditionModel


@dataclass(frozen=True, kw_only=True)
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

    def run(self, inputs: UNetInputs, no_lora: bool) -> torch.Tensor:
        """The model output, (rows, c, h, w) in the latents' dtype; `no_lora` where no row uses a LoRA."""
        ...


class EagerExecutor:
    """Plain torch, operator by operator."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._unet: Any = unet
        self._dtype = unet.dtype

    def run(self, inputs: UNetInputs, no_lora: bool) -> torch.Tensor:
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
    """torch.compile, with one graph for each power of two of rows.

    Batches with LoRAs run eagerly, because LoRAs are Python hooks. The graphs of the native size are compiled at
    warm-up, which measures 1, 2, 4 ... rows.
    """

    def __init__(self, unet: UNet2DConditionModel, backend: str = "inductor") -> None:
        super().__init__(unet)
        self._compiled: Any = torch.compile(unet, dynamic=False, backend=backend)

    def run(self, inputs: UNetInputs, no_lora: bool) -> torch.Tensor:
        """See `Executor`."""
        if not no_lora:
            return self._call(self._unet, inputs)
        rows = len(inputs.latents)
        return self._call(self._compiled, pad_rows(inputs, 1 << (rows - 1).bit_length()))[:rows]


def pad_rows(inputs: UNetInputs, rows: int) -> UNetInputs:
    """The inputs, filled up to `rows` rows with copies of the first."""
    missing = rows - len(inputs.latents)

    def pad(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])]) if missing else tensor

    return UNetInputs(
        latents=pad(inputs.latents),
        timesteps=pad(inputs.timesteps),
        prompt_embeds=pad(inputs.prompt_embeds),
        prompt_mask=None if inputs.prompt_mask is None else pad(inputs.prompt_mask),
        timestep_cond=None if inputs.timestep_cond is None else pad(inputs.timestep_cond),
        added={name: pad(tensor) for name, tensor in inputs.added.items()},
    )
