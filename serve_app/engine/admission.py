"""From a request to its tickets: what may be refused or slow, before anything joins the batch."""

from collections.abc import Callable
from dataclasses import replace

from serve_app.diffusion.table import SamplerTable
from serve_app.engine.hires import split_passes
from serve_app.engine.image_future import ImageFuture
from serve_app.engine.init_latents import blank_init
from serve_app.engine.passes import Callbacks, Pass
from serve_app.errors import InvalidRequest
from serve_app.models.model_family import ModelFamily
from serve_app.requests.events import ResumePoint
from serve_app.requests.request import GenerationRequest, InitImage


def admit(
    request: GenerationRequest,
    family: ModelFamily,
    table_of: Callable[[GenerationRequest], SamplerTable],
    callbacks: Callbacks,
    resume_from: ResumePoint | None,
) -> Pass:
    """The pass_ to begin with: sizes checked, tables of all passes compiled, LoRAs loaded.

    Raises:
        InvalidRequest: a step count its sampler refuses, or a size the VAE cannot make.
    """
    factor = family.autoencoder.scale_factor
    check_size(request.width, request.height, factor)
    if request.hires is not None:
        check_size(request.hires.width, request.hires.height, factor, "hires.")
    future = ImageFuture()
    guided = request.sampling.guidance_scale > 1 and not family.distilled
    first, *later = [Pass(one, table_of(one), guided, future, callbacks) for one in split_passes(request)]
    family.prepare(first.prompts)
    second = replace(later[0], calls_before=first.table.num_model_calls) if later else None
    if resume_from is None or resume_from.pass_index == 0:
        return replace(first, following=second, resume_from=resume_from)
    if second is None or family.mask_channels:
        # An inpainting UNet's second pass sees noise that followed from the first's picture: it starts anew.
        return replace(first, following=second)
    return replace(second, resume_from=resume_from)


def first_picture(pass_: Pass, family: ModelFamily) -> InitImage | None:
    """What the VAE has to encode before the pass_'s first step; None where it begins with noise or in the middle."""
    if pass_.pass_index:
        return None
    request = pass_.request
    if request.init is None and family.mask_channels:
        return blank_init(request.width, request.height)
    return request.init


def check_size(width: int, height: int, factor: int, prefix: str = "") -> None:
    """Refuse sides that the VAE cannot make."""
    for field, side in ((f"{prefix}width", width), (f"{prefix}height", height)):
        if side < factor or side % factor:
            raise InvalidRequest(field, side, f"must be a multiple of {factor}")
