"""Tiny random-weight checkpoints in diffusers' layout, with the real parts and config shapes."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

SD15_BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def make_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """Bytes only, no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{char}</w>" for char in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token=pad_token, model_max_length=77)


def make_text_config(tokenizer: CLIPTokenizer, width: int, **options: Any) -> CLIPTextConfig:
    """Two layers, two heads."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )


def make_vae(**options: Any) -> AutoencoderKL:
    """Factor 8, 4 latent channels."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        **options,
    )


def make_unet(width: int, **options: Any) -> UNet2DConditionModel:
    """Two levels, cross attention in the lower."""
    return UNet2DConditionModel(
        out_channels=4,
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width,
        norm_num_groups=4,
        **options,
    )


def save_stable_diffusion(folder: Path, prediction_type: str = "epsilon", **unet: Any) -> Path:
    """Like SD 1.5 (epsilon, PNDM config) or SD 2.1 (v-prediction, DDIM config); `unet` are the UNet's options."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    common: dict[str, Any] = {**SD15_BETAS, "steps_offset": 1, "set_alpha_to_one": False}
    if prediction_type == "epsilon":
        scheduler: Any = PNDMScheduler(skip_prk_steps=True, **common)
    else:
        scheduler = DDIMScheduler(clip_sample=False, prediction_type=prediction_type, **common)
    StableDiffusionPipeline(
        vae=make_vae(),
        text_encoder=CLIPTextModel(make_text_config(tokenizer, 32)),
        tokenizer=tokenizer,
        unet=make_unet(32, attention_head_dim=4, **unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_stable_diffusion_xl(folder: Path, **unet_options: Any) -> Path:
    """Like SDXL base: two text encoders, pooled embedding, time ids."""
    torch.manual_seed(0)
    first, second = make_tokenizer(), make_tokenizer(pad_token="!")
    unet = make_unet(
        80,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + 48,
        **unet_options,
    )
    StableDiffusionXLPipeline(
        vae=make_vae(force_upcast=True),
        text_encoder=CLIPTextModel(make_text_config(first, 32)),
        text_encoder_2=CLIPTextModelWithProjection(make_text_config(second, 48)),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**SD15_BETAS, steps_offset=1, timestep_spacing="leading"),
    ).save_pretrained(folder)
    return folder


def save_safety_checker(folder: Path, flags: bool) -> Path:
    """A tiny StableDiffusionSafetyChecker that flags everything, or nothing."""
    torch.manual_seed(0)
    common: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config=common, vision_config={**common, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(-2.0 if flags else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    checker.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
