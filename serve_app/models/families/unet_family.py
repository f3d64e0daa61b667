"""What the families around a UNet have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from serve_app.models.autoencoder import Autoencoder
from serve_app.models.denoisers.unet import UNet
from serve_app.models.lora.lora_layers import ActiveLora
from serve_app.models.lora.lora_store import LoraStore
from serve_app.models.model_family import DenoisingBatch, Prompt


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
