"""Between the two passes of a hires request: the first pass's result, enlarged, becomes what the second begins with."""

import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from serve_app.engine.init_latents import Source
from serve_app.engine.passes import Pass
from serve_app.models.autoencoder import LatentDistribution
from serve_app.requests.events import Timings
from serve_app.requests.image_files import to_raster
from serve_app.requests.request import InitImage


def enlarge_pixels(second: Pass, pixels: np.ndarray, earlier: Timings) -> Pass:
    """The second pass with its init image: the first pass's (h, w, 3) uint8, resized with Lanczos. Not encoded yet."""
    request = second.request
    image = Image.fromarray(pixels).resize((request.width, request.height), Image.Resampling.LANCZOS)
    strength = request.init.strength if request.init else 1.0
    init = InitImage(raster=to_raster(image), strength=strength)
    return replace(second, request=replace(request, init=init), earlier=earlier, submitted=time.monotonic())


def enlarge_latents(second: Pass, latents: torch.Tensor, factor: int, earlier: Timings) -> Pass:
    """The second pass with its source: the first pass's latents (c, h, w), resized bilinearly.

    Args:
        second: the pass to complete.
        latents: clean, scaled as the UNet wants them.
        factor: pixels of a latent.
        earlier: what the first pass took.
    """
    size = (second.request.height // factor, second.request.width // factor)
    larger = F.interpolate(latents[None], size=size, mode="bilinear", antialias=False)[0]
    source = Source(image=LatentDistribution(mean=larger))
    return replace(second, source=source, earlier=earlier, submitted=time.monotonic())
