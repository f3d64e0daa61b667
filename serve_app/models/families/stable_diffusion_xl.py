"""Stable Diffusion XL: two text encoders side by side, a pooled embedding and the picture's size as time ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from serve_app.models.autoencoder import Autoencoder
from serve_app.models.denoisers.unet import UNet
from serve_app.models.families.model_family import Conditioning, DenoisingBatch, Prompt
from serve_app.models.loading.checkpoint import Checkpoint
from serve_app.models.lora.lora_layers import ActiveLora, LoraStore
from serve_app.models.text.chunks import Chunk, apply_weights, join_chunks
from serve_app.models.text.clip_encoder import Encoded, TextEncoder


@dataclass(frozen=True)
class StableDiffusionXL:
    """A `ModelFamily`; an empty negative prompt is encoded as zeros where the checkpoint says so."""

    texts: tuple[TextEncoder, TextEncoder]
    unet: UNet
    autoencoder: Autoencoder
    loras: LoraStore
    scheduler_config: Mapping[str, object]
    device: torch.device
    zeros_for_empty_negative: bool

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "StableDiffusionXL":
        """Load every part; raises ModelLoadError."""
        unet = checkpoint.load(UNet2DConditionModel, "unet")
        tokenizers = [checkpoint.load_tokenizer(name) for name in ("tokenizer", "tokenizer_2")]
        first = checkpoint.load(CLIPTextModel, "text_encoder")
        second = checkpoint.load(CLIPTextModelWithProjection, "text_encoder_2")
        checkpoint.load_embeddings((tokenizers[0], first), (tokenizers[1], second))
        hooked = bool(checkpoint.config.loras)
        return cls(
            texts=(
                TextEncoder(tokenizers[0], first, "text_encoder", hooked),
                TextEncoder(tokenizers[1], second, "text_encoder_2", hooked),
            ),
            unet=UNet(unet, checkpoint.choose_executor(unet), hooked),
            autoencoder=checkpoint.load_autoencoder(),
            loras=checkpoint.load_loras({"unet": unet, "text_encoder": first, "text_encoder_2": second}),
            scheduler_config=checkpoint.scheduler_config(),
            device=checkpoint.device,
            zeros_for_empty_negative=bool(checkpoint.index().get("force_zeros_for_empty_prompt", True)),
        )

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
            self.loras.activate(prompt.loras)

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """See `ModelFamily`."""
        active = [self.loras.activate(prompt.loras) for prompt in prompts]
        rows = [[text.tokenize(prompt) for prompt in prompts] for text in self.texts]
        counts = [max(len(a), len(b)) for a, b in zip(*rows, strict=True)]
        sides = [self._encode_side(*pair, prompts, counts, active) for pair in zip(self.texts, rows, strict=True)]
        joined = join_chunks(torch.cat([states for states, _ in sides], dim=-1), counts)
        pooled = sides[1][1].pooled
        if pooled is None:
            raise TypeError("the second text encoder gives no pooled embedding")
        rows_pooled = [chunks[0] for chunks in pooled.split(counts)]
        found = [Conditioning(*row) for row in zip(joined, rows_pooled, active, strict=True)]
        return [self._finish(*pair) for pair in zip(prompts, found, strict=True)]

    def _encode_side(
        self,
        text: TextEncoder,
        rows: Sequence[list[Chunk]],
        prompts: Sequence[Prompt],
        counts: Sequence[int],
        active: Sequence[tuple[ActiveLora, ...]],
    ) -> tuple[torch.Tensor, Encoded]:
        """One encoder's weighted states; the shorter of the two chunk lists is filled up with its last chunk."""
        filled = [row + row[-1:] * (count - len(row)) for row, count in zip(rows, counts, strict=True)]
        chunks = [chunk for row in filled for chunk in row]
        encoded = text.encode(chunks, [used for used, count in zip(active, counts, strict=True) for _ in range(count)])
        skips = [prompt.clip_skip for prompt, count in zip(prompts, counts, strict=True) for _ in range(count)]
        states = torch.stack([encoded.hidden[-(skip + 2)][index] for index, skip in enumerate(skips)])
        return apply_weights(states, chunks), encoded

    def _finish(self, prompt: Prompt, encoded: Conditioning) -> Conditioning:
        if prompt.negative and not prompt.text and self.zeros_for_empty_negative and encoded.pooled is not None:
            zeros = torch.zeros_like(encoded.prompt_embeds), torch.zeros_like(encoded.pooled)
            return replace(encoded, prompt_embeds=zeros[0], pooled=zeros[1])
        return encoded

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """See `ModelFamily`. The time ids say: drawn at this size, not cropped."""
        pooled = torch.stack([row.pooled for row in batch.conditioning if row.pooled is not None])
        height, width = (side * self.autoencoder.scale_factor for side in batch.latents.shape[-2:])
        size = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype)
        time_ids = size.to(self.device, non_blocking=True).expand(len(pooled), -1)
        return self.unet.predict(batch, {"text_embeds": pooled, "time_ids": time_ids})
