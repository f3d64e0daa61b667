"""Stable Diffusion 1.x and 2.x, and the built-in model, which has the same parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from serve_app.models.checkpoint import Checkpoint
from serve_app.models.executor import EagerExecutor, Executor, UNetInputs
from serve_app.models.family import Conditioning, DenoisingBatch, Prompt
from serve_app.models.pixels import decode_pixels, vae_scale_factor
from serve_app.models.prompts import join_chunks, stack_prompts, tokenize


@dataclass(frozen=True)
class StableDiffusion:
    """One CLIP text encoder, one UNet, one VAE; a `ModelFamily`."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    executor: Executor
    scheduler_config: Mapping[str, object]
    device: torch.device
    latent_channels: int

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "StableDiffusion":
        """Load every part; raises ModelLoadError."""
        unet = checkpoint.load(UNet2DConditionModel, "unet")
        checkpoint.require_text_to_image(unet)
        return cls(
            tokenizer=checkpoint.load_tokenizer("tokenizer"),
            text_encoder=checkpoint.load(CLIPTextModel, "text_encoder"),
            vae=checkpoint.load_vae(),
            executor=EagerExecutor(unet),
            scheduler_config=checkpoint.scheduler_config(),
            device=checkpoint.device,
            latent_channels=unet.config["in_channels"],
        )

    @property
    def vae_scale_factor(self) -> int:
        """See `ModelFamily`."""
        return vae_scale_factor(self.vae)

    def encode(self, prompts: Sequence[Prompt]) -> list[Conditioning]:
        """See `ModelFamily`."""
        chunks = [tokenize(self.tokenizer, prompt.text) for prompt in prompts]
        ids = torch.tensor([ids for rows in chunks for ids in rows], device=self.device)
        states = self.text_encoder(ids).last_hidden_state
        return [Conditioning(embeds) for embeds in join_chunks(states, [len(rows) for rows in chunks])]

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """See `ModelFamily`."""
        embeds, mask = stack_prompts([row.prompt_embeds for row in batch.conditioning])
        return self.executor.run(UNetInputs(batch.latents, batch.timesteps, embeds, mask))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See `ModelFamily`."""
        return decode_pixels(self.vae, latents)
