"""What the families around a UNet have in common: the UNet over unlike rows, LoRAs per row, the autoencoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from serve_app.diffusion.guidance import embed_guidance_scale
from serve_app.models.autoencoder import Autoencoder
from serve_app.models.denoisers.executor import Executor, UNetInputs
from serve_app.models.lora.lora_layers import LoraLayers
from serve_app.models.lora.lora_store import LoraStore
from serve_app.models.model_family import DenoisingBatch, Prompt, TokenizedPrompt
from serve_app.models.text.chunks import stack_prompts
from serve_app.models.text.clip_encoder import TextEncoder


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
        embeds, mask = stack_prompts([row.prompt_embeds for row in batch.conditioning], batch.padded_tokens)
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
    """Everything of a `ModelFamily` but how prompts are encoded.

    `texts` are the text encoders, in the order of `TokenizedPrompt.chunks`.
    """

    texts: tuple[TextEncoder, ...]
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

    @property
    def max_clip_skip(self) -> int:
        """See `ModelFamily`."""
        return min(text.num_layers for text in self.texts) - 1

    def tokenize(self, prompt: Prompt) -> TokenizedPrompt:
        """See `ModelFamily`."""
        chunks = tuple(text.tokenize(prompt) for text in self.texts)
        return TokenizedPrompt(prompt=prompt, chunks=chunks, loras=self.loras.activate(prompt.loras))

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """See `ModelFamily`."""
        return self.unet.predict(batch, {})
