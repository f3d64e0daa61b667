"""The contract between the engine and a model family: encode prompts, predict, and what a row needs.

A family is one file in families/, which owns its modules and knows their shapes; the engine knows neither.

What a later feature needs per UNet row (a ControlNet's residuals, an IP-Adapter's image embedding) becomes one more
field of `Conditioning`: the engine carries it without looking inside, the family's `predict` stacks it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch

from serve_app.models.autoencoder import Autoencoder
from serve_app.models.lora.lora_layers import ActiveLora


@dataclass(frozen=True)
class Prompt:
    """A text to encode; `negative` where it conditions the unconditional row.

    `weighted` reads AUTOMATIC1111's `(word:1.2)`, `[word]` and `BREAK`. `clip_skip` leaves out that many of the text
    encoder's last layers. `loras` are (name, weight) pairs.
    """

    text: str
    negative: bool = False
    weighted: bool = False
    clip_skip: int = 0
    loras: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Chunk:
    """The tokens that a text encoder takes at once (CLIP: 77), each with its weight."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompt:
    """A prompt as far as no model is needed: its chunks for each text encoder, and its LoRAs, loaded.

    Two are equal where their `prompt` is.
    """

    prompt: Prompt
    chunks: tuple[list[Chunk], ...] = field(compare=False)
    loras: tuple[ActiveLora, ...] = field(default=(), compare=False)

    @property
    def num_chunks(self) -> int:
        """Of the text encoder that needs most."""
        return max(len(one) for one in self.chunks)


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What one UNet row needs of its prompt, on the model's device.

    `prompt_embeds` is (tokens, width), 77 tokens for each 75 of the prompt; `pooled` is (width,) where the family has
    one. Rows of one batch may differ in tokens and in LoRAs.
    """

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    loras: tuple[ActiveLora, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Rows of `prompt_embeds`."""
        return len(self.prompt_embeds)

    @property
    def num_bytes(self) -> int:
        """What its tensors take, without the LoRAs."""
        return sum(one.numel() * one.element_size() for one in (self.prompt_embeds, self.pooled) if one is not None)

    def copy(self) -> Self:
        """The same values without LoRAs, in tensors of its own: `encode` gives views of a whole batch's."""
        pooled = None if self.pooled is None else self.pooled.clone()
        return replace(self, prompt_embeds=self.prompt_embeds.clone(), pooled=pooled, loras=())


@dataclass(frozen=True)
class DenoisingBatch:
    """One forward. `latents` (rows, c + mask channels, h, w) float32 are already scaled for the sampler.

    `timesteps` and `guidance_scale` are (rows,) float32; only distilled UNets read the scale. Prompts of unlike length
    are padded to `padded_tokens`, and the padding is masked; None where all are of one length.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    guidance_scale: torch.Tensor
    conditioning: Sequence[Conditioning]
    padded_tokens: int | None = None


class ModelFamily(Protocol):
    """A loaded checkpoint. One thread at a time may call its methods; another thread may call the autoencoder's."""

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
        """Input channels behind the latents: 5 for an inpainting UNet (mask, masked image's latents), else 0."""
        ...

    @property
    def distilled(self) -> bool:
        """Whether the UNet takes the guidance scale as an input, so that no row needs an unconditional one."""
        ...

    @property
    def max_clip_skip(self) -> int:
        """The largest `Prompt.clip_skip`: at least one layer of every text encoder is used."""
        ...

    def tokenize(self, prompt: Prompt) -> TokenizedPrompt:
        """All of the work on a prompt that no model does; reads its LoRAs from disk. From any thread.

        Raises ModelLoadError.
        """
        ...

    def encode(self, prompts: Sequence[TokenizedPrompt]) -> list[Conditioning]:
        """Encode the prompts in one batch."""
        ...

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """The model output (noise_pred, velocity ...) of every row: (rows, c, h, w) float32."""
        ...
