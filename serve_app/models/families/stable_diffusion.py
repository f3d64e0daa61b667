"""Stable Diffusion 1.x and 2.x, their inpainting and distilled descendants, and the built-in model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from serve_app.models.families.unet_family import UNet, UNetFamily
from serve_app.models.loading.checkpoint import Checkpoint
from serve_app.models.model_family import Conditioning, TokenizedPrompt
from serve_app.models.text.chunks import apply_weights, join_chunks
from serve_app.models.text.clip_encoder import TextEncoder


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(UNetFamily):
    """One CLIP text encoder, one UNet, one VAE; a `ModelFamily`."""

    def encode(self, prompts: Sequence[TokenizedPrompt]) -> list[Conditioning]:
        """See `ModelFamily`."""
        (text,) = self.texts
        chunks = [chunk for prompt in prompts for chunk in prompt.chunks[0]]
        encoded = text.encode(chunks, [prompt.loras for prompt in prompts for _ in prompt.chunks[0]])
        skips = [prompt.prompt.clip_skip for prompt in prompts for _ in prompt.chunks[0]]
        states = torch.stack(
            [
                text.normalize(encoded.hidden[-(skip + 1)][index]) if skip else encoded.last[index]
                for index, skip in enumerate(skips)
            ]
        )
        embeds = join_chunks(apply_weights(states, chunks), [prompt.num_chunks for prompt in prompts])
        return [Conditioning(prompt_embeds=embed, loras=one.loras) for embed, one in zip(embeds, prompts, strict=True)]


def load(checkpoint: Checkpoint) -> StableDiffusion:
    """Load every part. Raises ModelLoadError."""
    unet = checkpoint.load(UNet2DConditionModel, "unet")
    tokenizer = checkpoint.load_tokenizer("tokenizer")
    text_encoder = checkpoint.load(CLIPTextModel, "text_encoder")
    checkpoint.load_embeddings((tokenizer, text_encoder))
    lora_layers = bool(checkpoint.config.loras)
    return StableDiffusion(
        texts=(TextEncoder(tokenizer, text_encoder, "text_encoder", lora_layers),),
        unet=UNet(unet, checkpoint.choose_executor(unet), lora_layers),
        autoencoder=checkpoint.load_autoencoder(),
        loras=checkpoint.load_loras({"unet": unet, "text_encoder": text_encoder}),
        scheduler_config=checkpoint.scheduler_config(),
        device=checkpoint.device,
    )
