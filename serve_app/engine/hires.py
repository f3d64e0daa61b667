"""The second pass of a hires request: the first pass's picture, enlarged, drawn over once more."""

import time
from dataclasses import replace

import numpy as np
from PIL import Image
from torch.nn import functional as F

from serve_app.engine.init_latents import Source
from serve_app.engine.passes import Pass
from serve_app.engine.trajectory import DecodeJob, EncodeJob, PendingRequest
from serve_app.models.autoencoder import LatentDistribution
from serve_app.requests.events import Timings
from serve_app.requests.image_files import to_raster
from serve_app.requests.request import GenerationRequest, InitImage, Raster

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
        sampling=request.sampling.model_copy(update={"num_inference_steps": hires.num_inference_steps}),
        init=InitImage(NO_PICTURE, hires.strength),
        variation=None,
    )
    return [request, replace(second, hires=None)]


def enlarge_pixels(pass_: Pass, pixels: np.ndarray, timings: Timings) -> EncodeJob:
    """The pass `pass_`, from a picture (h, w, 3) uint8 that is resized with Lanczos."""
    size = (pass_.request.width, pass_.request.height)
    raster = to_raster(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    init = pass_.request.init
    strength = init.strength if init else 1.0
    return EncodeJob(_resume(pass_, timings), InitImage(raster, strength))


def enlarge_latents(job: DecodeJob) -> PendingRequest | None:
    """The second pass from bilinearly resized latents; None where there is none, or it wants pixels."""
    following, hires = job.pass_.following, job.pass_.request.hires
    if following is None or hires is None or hires.upscaler != "latent":
        return None
    factor = job.pass_.request.width // job.latents.shape[-1]
    size = (hires.height // factor, hires.width // factor)
    latents = F.interpolate(job.latents[None], size=size, mode="bilinear", antialias=False)[0]
    return PendingRequest(_resume(following, job.timings), Source(LatentDistribution(latents)))


def _resume(pass_: Pass, timings: Timings) -> Pass:
    """The later pass_, with what the earlier passes took."""
    return replace(pass_, earlier=timings, submitted=time.monotonic())
