"""What a request costs: model calls by latent size and rows. Seconds follow from a replica's step curve."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import GenerationRequest, kept_steps
from serve_app.requests.resolve import resolve_sampling
from serve_app.requests.samplers import SAMPLERS
from serve_app.requests.step_curve import Size, StepCurve


@dataclass(frozen=True)
class PassWork:
    """One pass: `calls` model calls of `rows` UNet rows at latent size `size`."""

    size: Size
    rows: int
    calls: int


Work = tuple[PassWork, ...]
"""All passes of one image."""


def work_of(request: GenerationRequest, vae_scale_factor: int) -> Work:
    """The work of one image. Guidance that starts late or ends early counts as if it were always on."""
    sampling = request.sampling
    rows = 2 if sampling.guidance_scale > 1 else 1
    per_step = SAMPLERS[sampling.sampler].calls_per_step
    steps = sampling.num_inference_steps - request.skipped_steps
    size = (request.height // vae_scale_factor, request.width // vae_scale_factor)
    passes = [PassWork(size, rows, max(1, steps * per_step))]
    if request.hires is not None:
        hires = request.hires
        size = (hires.height // vae_scale_factor, hires.width // vae_scale_factor)
        steps = kept_steps(hires.num_inference_steps, hires.strength)
        passes.append(PassWork(size, rows, max(1, steps * per_step)))
    return tuple(passes)


def estimate_work(params: GenerationParams, model: ModelCapabilities) -> Work:
    """The work of one image, before anything of it is decided: for a side that is not given, the native one counts.

    There is none where the size is beyond the model's limits: that is refused later, by name.

    Raises:
        InvalidRequest: a sampling parameter is not valid.
    """
    sampling, limits = resolve_sampling(params, model), model.limits
    rows = 2 if sampling.guidance_scale > 1 else 1
    factor = model.vae_scale_factor
    height, width = params.height or model.native_size, params.width or model.native_size
    if not (0 < height <= limits.max_side and 0 < width <= limits.max_side and height * width <= limits.max_pixels):
        return ()
    size = (height // factor, width // factor)
    return (PassWork(size, rows, sampling.num_inference_steps * SAMPLERS[sampling.sampler].calls_per_step),)


def shared_seconds(work: Sequence[PassWork], curve: StepCurve, batches: float) -> float:
    """Seconds from first to last step where so many full batches, this image in one of them, take turns."""
    return sum(
        one.calls
        * max(1.0, batches)
        * curve.seconds_of(one.size, max(one.rows, int(min(1.0, batches) * _width(one, curve))))
        for one in work
    )


def batched_seconds(work: Sequence[PassWork], curve: StepCurve) -> float:
    """The image's share of the device time of full batches, in seconds."""
    return sum(one.calls * _full_step(one, curve) * _share(one, curve) for one in work)


def batch_share(work: Sequence[PassWork], curve: StepCurve) -> float:
    """The part of a full batch that the image takes, of its largest pass; 1 and more where it fills one."""
    return max((_share(one, curve) for one in work), default=0.0)


def _full_step(one: PassWork, curve: StepCurve) -> float:
    """Seconds of a forward of a full batch at the pass's size."""
    return curve.seconds_of(one.size, _width(one, curve))


def _share(one: PassWork, curve: StepCurve) -> float:
    return one.rows / _width(one, curve)


def _width(one: PassWork, curve: StepCurve) -> int:
    """UNet rows of a full batch at the pass's size."""
    return max(one.rows, curve.cap(one.size))
