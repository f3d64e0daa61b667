"""Stable Diffusion XL base: two text encoders side by side, a pooled embedding and the picture's size as time ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from serve_app.models.checkpoint import Checkpoint
from serve_app.models.executor import EagerExecutor, Executor, UNetInputs
from serve_app.models.family import Conditioning, DenoisingBatch, Prompt
from serve_app.models.pixels import decode_pixels, vae_scale_factor
from serve_app.models.prompts import join_chunks, stack_prompts, tokenize


@dataclass(frozen=True)
class StableDiffusionXL:
    """A `ModelFamily`; an empty negative prompt is encoded as zeros where the checkpoint says so."""

    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    vae: AutoencoderKL
    executor: Executor
    scheduler_config: Mapping[str, object]
    device: torch.device
    latent_channels: int
    zeros_for_empty_negative: bool

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "StableDiffusionXL":
        """Load every part; raises ModelLoadError."""
        unet = checkpoint.load(UNet2DConditionModel, "unet")
        checkpoint.require_text_to_image(unet)
        return cls(
            tokenizers=(checkpoint.load_tokenizer("tokenizer"), checkpoint.load_tokenizer("tokenizer_2")),
            text_encoder=checkpoint.load(CLIPTextModel, "text_encoder"),
            text_encoder_2=checkpoint.load(CLIPTextModelWithProjection, "text_encoder_2"),
            vae=checkpoint.load_vae(),
            executor=EagerExecutor(unet),
            scheduler_config=checkpoint.scheduler_config(),
            device=checkpoint.device,
            latent_channels=unet.config["in_channels"],
            zeros_for_empty_negative=bool(checkpoint.index().get("force_zeros_for_empty_prompt", True)),
        )

    @property
    def vae_scale_factor(self) -> int:
        """See `ModelFamily`."""
        return vae_scale_factor(self.vae)

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """See `ModelFamily`."""
        first, second = ([tokenize(tokenizer, prompt.text) for prompt in prompts] for tokenizer in self.tokenizers)
        counts = [max(len(a), len(b)) for a, b in zip(first, second, strict=True)]
        outputs = self.text_encoder(self._ids(first, counts), output_hidden_states=True)
        outputs_2 = self.text_encoder_2(self._ids(second, counts), output_hidden_states=True)
        states = torch.cat([outputs.hidden_states[-2], outputs_2.hidden_states[-2]], dim=-1)
        pooled = [chunks[0] for chunks in outputs_2.text_embeds.split(counts)]
        encoded = [Conditioning(*pair) for pair in zip(join_chunks(states, counts), pooled, strict=True)]
        return [self._finish(*pair) for pair in zip(prompts, encoded, strict=True)]

    def _ids(self, chunks: list[list[list[int]]], counts: list[int]) -> torch.Tensor:
        """Token ids of all chunks, the shorter of the two encoders' chunk lists filled up with its last chunk."""
        filled = [rows + rows[-1:] * (count - len(rows)) for rows, count in zip(chunks, counts, strict=True)]
        return torch.tensor([ids for rows in filled for ids in rows], device=self.device)

    def _finish(self, prompt: Prompt, encoded: Conditioning) -> Conditioning:
        if prompt.negative and not prompt.text and self.zeros_for_empty_negative and encoded.pooled is not None:
            return Conditioning(torch.zeros_like(encoded.prompt_embeds), torch.zeros_like(encoded.pooled))
        return encoded

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """See `ModelFamily`. The time ids say: drawn at this size, not cropped."""
        embeds, mask = stack_prompts([row.prompt_embeds for row in batch.conditioning])
        pooled = torch.stack([row.pooled for row in batch.conditioning if row.pooled is not None])
        height, width = (side * self.vae_scale_factor for side in batch.latents.shape[-2:])
        size = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype)
        time_ids = size.to(self.device, non_blocking=True).expand(len(pooled), -1)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        return self.executor.run(UNetInputs(batch.latents, batch.timesteps, embeds, mask, added))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See `ModelFamily`."""
        return decode_pixels(self.vae, latents)
