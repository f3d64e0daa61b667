"""Stable Diffusion XL: two text encoders side by side, a pooled embedding, and the image's size as time ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from serve_app.models.families.unet_family import UNet, UNetFamily
from serve_app.models.loading.checkpoint import Checkpoint
from serve_app.models.model_family import Conditioning, DenoisingBatch, Prompt, TokenizedPrompt
from serve_app.models.text.chunks import apply_weights, join_chunks
from serve_app.models.text.clip_encoder import Encoded, TextEncoder


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(UNetFamily):
    """A `ModelFamily`; an empty negative prompt is encoded as zeros where the checkpoint says so."""

    zeros_for_empty_negative: bool

    def encode(self, prompts: Sequence[TokenizedPrompt]) -> list[Conditioning]:
        """See `ModelFamily`."""
        counts = [prompt.num_chunks for prompt in prompts]
        first, second = (self._encode_with(encoder, prompts) for encoder in range(2))
        embeds = join_chunks(torch.cat([first[0], second[0]], dim=-1), counts)
        pooled = second[1].pooled
        if pooled is None:
            raise TypeError("the second text encoder gives no pooled embedding")
        found = [
            Conditioning(prompt_embeds=embed, pooled=chunks[0], loras=one.loras)
            for embed, chunks, one in zip(embeds, pooled.split(counts), prompts, strict=True)
        ]
        return [self._zero_if_empty(one.prompt, encoded) for one, encoded in zip(prompts, found, strict=True)]

    def _encode_with(self, encoder: int, prompts: Sequence[TokenizedPrompt]) -> tuple[torch.Tensor, Encoded]:
        """One encoder's weighted states; the shorter of the two chunk lists is filled up with its last chunk."""
        text = self.texts[encoder]
        rows = [prompt.chunks[encoder] for prompt in prompts]
        filled = [row + row[-1:] * (one.num_chunks - len(row)) for row, one in zip(rows, prompts, strict=True)]
        chunks = [chunk for row in filled for chunk in row]
        encoded = text.encode(chunks, [prompt.loras for prompt in prompts for _ in range(prompt.num_chunks)])
        skips = [prompt.prompt.clip_skip for prompt in prompts for _ in range(prompt.num_chunks)]
        states = torch.stack([encoded.hidden[-(skip + 2)][index] for index, skip in enumerate(skips)])
        return apply_weights(states, chunks), encoded

    def _zero_if_empty(self, prompt: Prompt, encoded: Conditioning) -> Conditioning:
        if prompt.negative and not prompt.text and self.zeros_for_empty_negative and encoded.pooled is not None:
            return replace(
                encoded,
                prompt_embeds=torch.zeros_like(encoded.prompt_embeds),
                pooled=torch.zeros_like(encoded.pooled),
            )
        return encoded

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """See `ModelFamily`. The time ids say that the image was made at this size and not cropped."""
        pooled = torch.stack([row.pooled for row in batch.conditioning if row.pooled is not None])
        height, width = (side * self.autoencoder.scale_factor for side in batch.latents.shape[-2:])
        size = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype)
        time_ids = size.to(self.device, non_blocking=True).expand(len(pooled), -1)
        return self.unet.predict(batch, {"text_embeds": pooled, "time_ids": time_ids})


def load(checkpoint: Checkpoint) -> StableDiffusionXL:
    """Load every part. Raises ModelLoadError."""
    unet = checkpoint.load(UNet2DConditionModel, "unet")
    tokenizers = [checkpoint.load_tokenizer(name) for name in ("tokenizer", "tokenizer_2")]
    first = checkpoint.load(CLIPTextModel, "text_encoder")
    second = checkpoint.load(CLIPTextModelWithProjection, "text_encoder_2")
    checkpoint.load_embeddings((tokenizers[0], first), (tokenizers[1], second))
    lora_layers = bool(checkpoint.config.loras)
    return StableDiffusionXL(
        texts=(
            TextEncoder(tokenizers[0], first, "text_encoder", lora_layers),
            TextEncoder(tokenizers[1], second, "text_encoder_2", lora_layers),
        ),
        unet=UNet(unet, checkpoint.choose_executor(unet), lora_layers),
        autoencoder=checkpoint.load_autoencoder(),
        loras=checkpoint.load_loras({"unet": unet, "text_encoder": first, "text_encoder_2": second}),
        scheduler_config=checkpoint.scheduler_config(),
        device=checkpoint.device,
        zeros_for_empty_negative=bool(checkpoint.index().get("force_zeros_for_empty_prompt", True)),
    )
