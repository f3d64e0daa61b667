"""The contract between the engine and a checkpoint family: encode, predict, decode.

A family is one file in this package. It owns its modules and knows their shapes; the engine knows neither. To add one,
write the class, and name its pipeline in `loading.FAMILIES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Prompt:
    """A text to encode; `negative` where it conditions the unconditional twin."""

    text: str
    negative: bool = False


@dataclass(frozen=True)
class Conditioning:
    """What one UNet row needs of its prompt, on the model's device.

    `prompt_embeds` is (tokens, width), 77 tokens for each 75 of the prompt; `pooled` is (width,) where the family has
    one. Rows of one batch may differ in tokens.
    """

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor | None = None


@dataclass(frozen=True)
class DenoisingBatch:
    """One forward: `latents` (rows, c, h, w) float32, already scaled for the sampler; `timesteps` (rows,) float32."""

    latents: torch.Tensor
    timesteps: torch.Tensor
    conditioning: Sequence[Conditioning]


class ModelFamily(Protocol):
    """A loaded checkpoint. Every method may be called from one thread at a time, `decode` from another."""

    @property
    def scheduler_config(self) -> Mapping[str, object]:
        """The checkpoint's `scheduler/scheduler_config.json`."""
        ...

    @property
    def device(self) -> torch.device:
        """Where latents and conditioning live."""
        ...

    @property
    def latent_channels(self) -> int:
        """c of the latents."""
        ...

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent, along one side."""
        ...

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """Encode the prompts in one batch."""
        ...

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """The model output (noise_pred, velocity ...) of every row: (rows, c, h, w) float32."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (n, c, h, w) float32 to pictures (n, H, W, 3) uint8 on the CPU."""
        ...
