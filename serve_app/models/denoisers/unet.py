"""A UNet with what every family asks of it: prompts stacked, LoRAs applied by row, distilled guidance embedded."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from serve_app.diffusion.guidance import embed_guidance_scale
from serve_app.models.denoisers.executor import Executor, UNetInputs
from serve_app.models.families.model_family import DenoisingBatch
from serve_app.models.lora.lora_layers import LoraLayers
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
        """Whether the guidance scale is an input."""
        return self._guidance_width is not None

    def predict(self, batch: DenoisingBatch, added: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See `ModelFamily.predict`; `added` are the family's `added_cond_kwargs`."""
        embeds, mask = stack_prompts([row.prompt_embeds for row in batch.conditioning])
        width = self._guidance_width
        embedded = None if width is None else embed_guidance_scale(batch.guidance_scale, width)
        inputs = UNetInputs(batch.latents, batch.timesteps, embeds, mask, embedded, added)
        loras = [row.loras for row in batch.conditioning]
        if self._lora_layers is None or not any(loras):
            return self._executor.run(inputs, plain=True)
        with self._lora_layers.rows(loras):
            return self._executor.run(inputs, plain=False)
