"""From checkpoints to the package: a diffusers directory in fp16, and a sheet of sample images."""

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import nn
from transformers import CLIPTokenizer

from serve_app.builtin.training.train_denoiser import sampler_config

SHEET_PROMPTS = (
    "red apple on a blue background",
    "red heart on a white background",
    "pizza on a green background",
    "rocket on a black background",
    "cat face on a purple background",
    "house on a cyan background",
    "sunflower on a purple background",
    "grinning face on a pink background",
)


def assemble_pipeline(
    vae: AutoencoderKL, denoiser: nn.ModuleDict, tokenizer: CLIPTokenizer, latents: torch.Tensor
) -> StableDiffusionPipeline:
    """The stock pipeline over copies of the trained parts; `latents` give the scaling factor."""
    vae = copy.deepcopy(vae)
    parts: dict[str, Any] = dict(copy.deepcopy(denoiser).items())
    absent: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 6))
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=parts["text_encoder"],
        tokenizer=tokenizer,
        unet=parts["unet"],
        scheduler=sampler_config(),
        **absent,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_denoiser(folder: Path) -> nn.ModuleDict:
    """The text encoder and UNet of an exported model, in float32, to continue training."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, local_files_only=True)
    return nn.ModuleDict({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})


def export(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write fp16 safetensors into `folder` and check that `from_pretrained` reads them."""
    copy.copy(pipeline).to(torch.float16).save_pretrained(folder, safe_serialization=True)
    StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True)


def draw_sheet(folder: Path, path: Path, columns: int = 4) -> None:
    """Draw `SHEET_PROMPTS` with the model in `folder`, 25 steps, guidance 3, into one PNG."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(row) for row in range(len(SHEET_PROMPTS))]
    images = pipeline(
        list(SHEET_PROMPTS), num_inference_steps=25, guidance_scale=3.0, generator=generators, return_dict=False
    )[0]
    sheet = Image.new("RGB", (columns * 136 - 8, -(-len(images) // columns) * 136 - 8), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * 136, index // columns * 136))
    sheet.save(path)
