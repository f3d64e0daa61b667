"""Reading and comparing pictures, and the stock pipeline they are held against."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from serve_app.builtin.training.captions import COLOURS
from serve_app.diffusion.new_scheduler import new_scheduler
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_files import Raster
from serve_app.requests.request import GenerationRequest


def pixels(image: GeneratedImage | bytes) -> np.ndarray:
    """(h, w, 3) as signed integers, ready to be subtracted."""
    content = image.content if isinstance(image, GeneratedImage) else image
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def difference(one: GeneratedImage, other: GeneratedImage) -> int:
    """Largest difference of any pixel's channel, of 255."""
    return int(np.abs(pixels(one) - pixels(other)).max())


def named_background(image: GeneratedImage | bytes) -> str:
    """The background colour that the built-in model's captions would name, from the picture's upper edge."""
    median = np.median(pixels(image)[:5].reshape(-1, 3), axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(median - np.array(COLOURS[name])).sum()))


def load_pipeline(folder: Path) -> Any:
    """The stock diffusers pipeline, in float32."""
    pipeline = DiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_with_pipeline(pipeline: Any, scheduler_config: Any, request: GenerationRequest) -> np.ndarray:
    """The request's picture, by diffusers alone: (h, w, 3) signed integers."""
    pipeline.scheduler = new_scheduler(scheduler_config, request.sampling.sampler, request.sampling.scheduler)
    image = pipeline(
        request.prompt,
        negative_prompt=request.sampling.negative_prompt or None,
        height=request.height,
        width=request.width,
        num_inference_steps=request.sampling.num_inference_steps,
        guidance_scale=request.sampling.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
        # The pipeline's default eta, 0, would turn off the noise that TCD is defined with.
        eta=0.3 if request.sampling.sampler == "tcd" else 0.0,
    ).images[0]
    return np.asarray(image).astype(int)


def raster_image(raster: Raster) -> Image.Image:
    """Decoded pixels as an image."""
    return Image.frombytes(raster.mode, (raster.width, raster.height), raster.content)
