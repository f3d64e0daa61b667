"""From a request to its tickets: what may be refused or slow, before anything joins the batch."""

from collections.abc import Callable
from dataclasses import replace

from serve_app.diffusion.table import SamplerTable
from serve_app.engine.drawing import Drawing
from serve_app.engine.events import Checkpoint
from serve_app.engine.request import GenerationRequest, InitImage
from serve_app.engine.second_pass import split_passes
from serve_app.engine.start import blank_init
from serve_app.engine.ticket import Listening, Ticket
from serve_app.errors import InvalidRequest
from serve_app.models.family import ModelFamily


def admit(
    request: GenerationRequest,
    family: ModelFamily,
    table_of: Callable[[GenerationRequest], SamplerTable],
    listening: Listening,
    resumed: Checkpoint | None,
) -> Ticket:
    """The ticket to begin with: sizes checked, tables of all passes compiled, LoRAs loaded.

    Raises:
        InvalidRequest: a step count its sampler refuses, or a size the VAE cannot make.
    """
    factor = family.autoencoder.scale_factor
    check_size(request.width, request.height, factor)
    if request.hires is not None:
        check_size(request.hires.width, request.hires.height, factor, "hires.")
    drawing = Drawing()
    guided = request.guidance.scale > 1 and not family.distilled
    first, *later = [Ticket(one, table_of(one), guided, drawing, listening) for one in split_passes(request)]
    family.prepare(first.prompts)
    second = replace(later[0], calls_before=first.table.num_model_calls) if later else None
    if resumed is None or resumed.pass_index == 0:
        return replace(first, following=second, resumed=resumed)
    if second is None or family.mask_channels:
        # An inpainting UNet's second pass sees noise that followed from the first's picture: it starts anew.
        return replace(first, following=second)
    return replace(second, resumed=resumed)


def first_picture(ticket: Ticket, family: ModelFamily) -> InitImage | None:
    """What the VAE has to encode before the ticket's first step; None where it begins with noise or in the middle."""
    if ticket.pass_index:
        return None
    request = ticket.request
    if request.init is None and family.mask_channels:
        return blank_init(request.width, request.height)
    return request.init


def check_size(width: int, height: int, factor: int, prefix: str = "") -> None:
    """Refuse sides that the VAE cannot make."""
    for field, side in ((f"{prefix}width", width), (f"{prefix}height", height)):
        if side < factor or side % factor:
            raise InvalidRequest(field, side, f"must be a multiple of {factor}")
