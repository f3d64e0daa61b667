"""The contract between the engine and a checkpoint family: encode, predict, and what a row needs.

A family is one file in this package. It owns its modules and knows their shapes; the engine knows neither. To add one,
write the class, and name its pipeline in `loading.FAMILIES`.

What a later feature needs per UNet row (a ControlNet's residuals, an IP-Adapter's image embedding) becomes one more
field of `Conditioning`: the engine carries it without looking inside, the family's `predict` stacks it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from serve_app.models.autoencoder import Autoencoder
from serve_app.models.lora.lora_layers import ActiveLora


@dataclass(frozen=True)
class Prompt:
    """A text to encode; `negative` where it conditions the unconditional twin.

    `weighted` reads AUTOMATIC1111's `(word:1.2)`, `[word]` and `BREAK`. `clip_skip` leaves out that many of the text
    encoder's last layers. `loras` are (name, weight) pairs.
    """

    text: str
    negative: bool = False
    weighted: bool = False
    clip_skip: int = 0
    loras: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Conditioning:
    """What one UNet row needs of its prompt, on the model's device.

    `prompt_embeds` is (tokens, width), 77 tokens for each 75 of the prompt; `pooled` is (width,) where the family has
    one. Rows of one batch may differ in tokens and in LoRAs.
    """

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    loras: tuple[ActiveLora, ...] = ()


@dataclass(frozen=True)
class DenoisingBatch:
    """One forward. `latents` (rows, c + mask channels, h, w) float32 are already scaled for the sampler.

    `timesteps` and `guidance_scale` are (rows,) float32; the scale is read by distilled UNets only.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    guidance_scale: torch.Tensor
    conditioning: Sequence[Conditioning]


class ModelFamily(Protocol):
    """A loaded checkpoint. Each method may be called from one thread at a time, the autoencoder's from another."""

    @property
    def scheduler_config(self) -> Mapping[str, object]:
        """The checkpoint's `scheduler/scheduler_config.json`."""
        ...

    @property
    def device(self) -> torch.device:
        """Where latents and conditioning live."""
        ...

    @property
    def autoencoder(self) -> Autoencoder:
        """Pixels to latents and back."""
        ...

    @property
    def mask_channels(self) -> int:
        """Channels behind the latents: 5 for an inpainting UNet (mask, masked picture's latents), else 0."""
        ...

    @property
    def distilled(self) -> bool:
        """Whether the UNet takes the guidance scale as an input, so that no row has an unconditional twin."""
        ...

    def prepare(self, prompts: Sequence[Prompt]) -> None:
        """Load what `encode` will need of the disk (LoRAs). From any thread. Raises GenerationFailed."""
        ...

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """Encode the prompts in one batch."""
        ...

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """The model output (noise_pred, velocity ...) of every row: (rows, c, h, w) float32."""
        ...
