"""What the families around a UNet have in common: the UNet over unlike rows, LoRAs per row, the autoencoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from serve_app.diffusion.guidance import embed_guidance_scale
from serve_app.models.autoencoder import Autoencoder
from serve_app.models.denoisers.executor import Executor, UNetInputs
from serve_app.models.lora.lora_layers import ActiveLora, LoraLayers
from serve_app.models.lora.lora_store import LoraStore
from serve_app.models.model_family import DenoisingBatch, Prompt
from serve_app.models.text.chunks import stack_prompts


class UNet:
    """Predicts the model output of unlike rows in one forward."""

    def __init__(self, module: UNet2DConditionModel, executor: Executor, lora_layers: bool = False) -> None:
        config: Any = module.config
        self.channels = int(config["out_channels"])
        self.mask_channels = int(config["in_channels"]) - self.channels
        self._guidance_width: int | None = config["time_cond_proj_dim"]
        self._executor = executor
        self._lora_layers = LoraLayers(module, "unet") if lora_layers else None

    @property
    def distilled(self) -> bool:
        """Whether the guidance scale is an input of the UNet."""
        return self._guidance_width is not None

    def predict(self, batch: DenoisingBatch, added: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `ModelFamily.predict`; `added` are the family's `added_cond_kwargs`."""
        embeds, mask = stack_prompts([row.prompt_embeds for row in batch.conditioning])
        width = self._guidance_width
        embedded = None if width is None else embed_guidance_scale(batch.guidance_scale, width)
        inputs = UNetInputs(
            latents=batch.latents,
            timesteps=batch.timesteps,
            prompt_embeds=embeds,
            prompt_mask=mask,
            timestep_cond=embedded,
            added=added,
        )
        loras = [row.loras for row in batch.conditioning]
        if self._lora_layers is None or not any(loras):
            return self._executor.run(inputs, no_lora=True)
        with self._lora_layers.rows(loras):
            return self._executor.run(inputs, no_lora=False)


@dataclass(frozen=True, kw_only=True)
class UNetFamily:
    """Everything of a `ModelFamily` but how prompts are encoded; a subclass adds its text encoders."""

    unet: UNet
    autoencoder: Autoencoder
    loras: LoraStore
    scheduler_config: Mapping[str, object]
    device: torch.device

    @property
    def mask_channels(self) -> int:
        """See `ModelFamily`."""
        return self.unet.mask_channels

    @property
    def distilled(self) -> bool:
        """See `ModelFamily`."""
        return self.unet.distilled

    def prepare(self, prompts: Sequence[Prompt]) -> None:
        """See `ModelFamily`."""
        for prompt in prompts:
            self.active_loras(prompt)

    def active_loras(self, prompt: Prompt) -> tuple[ActiveLora, ...]:
        """The loaded LoRAs of a prompt, with their weights."""
        return self.loras.activate(prompt.loras) if prompt.loras else ()

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """See `ModelFamily`."""
        return self.unet.predict(batch, {})
