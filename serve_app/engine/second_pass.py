"""The second pass of a hires request: the first pass's picture, enlarged, drawn over once more."""

import time
from dataclasses import replace

import numpy as np
from PIL import Image
from torch.nn import functional as F

from serve_app.engine.events import Timings
from serve_app.engine.pictures import to_raster
from serve_app.engine.request import GenerationRequest, InitImage, Raster
from serve_app.engine.start import Source
from serve_app.engine.ticket import Ticket
from serve_app.engine.trajectory import Arrival, Exposure, Original
from serve_app.models.autoencoder import LatentDistribution

NO_PICTURE = Raster(0, 0, "RGB", b"")
"""What stands for the first pass's picture until that is drawn."""


def split_passes(request: GenerationRequest) -> list[GenerationRequest]:
    """One request for each pass; the second starts from a picture that is not there yet."""
    hires = request.hires
    if hires is None:
        return [request]
    second = replace(
        request,
        width=hires.width,
        height=hires.height,
        num_inference_steps=hires.num_inference_steps,
        init=InitImage(NO_PICTURE, hires.strength),
        variation=None,
    )
    return [request, replace(second, hires=None)]


def enlarge_pixels(ticket: Ticket, pixels: np.ndarray, timings: Timings) -> Original:
    """The pass `ticket`, from a picture (h, w, 3) uint8 that is resized with Lanczos."""
    size = (ticket.request.width, ticket.request.height)
    raster = to_raster(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    init = ticket.request.init
    strength = init.strength if init else 1.0
    return Original(_resume(ticket, timings), InitImage(raster, strength))


def enlarge_latents(exposure: Exposure) -> Arrival | None:
    """The second pass from bilinearly resized latents; None where there is none, or it wants pixels."""
    following, hires = exposure.ticket.following, exposure.ticket.request.hires
    if following is None or hires is None or hires.upscaler != "latent":
        return None
    factor = exposure.ticket.request.width // exposure.latents.shape[-1]
    size = (hires.height // factor, hires.width // factor)
    latents = F.interpolate(exposure.latents[None], size=size, mode="bilinear", antialias=False)[0]
    return Arrival(_resume(following, exposure.timings), Source(LatentDistribution(latents)))


def _resume(ticket: Ticket, timings: Timings) -> Ticket:
    """The later ticket, with what the earlier passes took."""
    return replace(ticket, earlier=timings, submitted=time.monotonic())
