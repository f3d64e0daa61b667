"""A pass: one run of the sampler from its first step to its last. A hires request takes two, any other takes one."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from serve_app.diffusion.table import SamplerTable
from serve_app.diffusion.tables import SamplerTables
from serve_app.engine.image_future import Claim, ImageFuture
from serve_app.engine.init_latents import Source, blank_init
from serve_app.engine.work_guard import run_guarded
from serve_app.errors import DarkroomError, InvalidRequest
from serve_app.models.model_family import ModelFamily, Prompt, TokenizedPrompt
from serve_app.requests.events import Progress, ResumePoint, Timings
from serve_app.requests.image_files import Raster
from serve_app.requests.request import CallerContext, GenerationRequest, InitImage
from serve_app.requests.work import PassWork, Work

OnProgress = Callable[[Progress], None]
OnResumePoint = Callable[[ResumePoint], None]

NO_IMAGE_YET = Raster(width=0, height=0, mode="RGB", content=b"")
"""Stands for the first pass's image until that exists."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Called from the engine's threads, so they must be quick. An exception fails the callback's own request."""

    on_progress: OnProgress | None = None
    on_resume_point: OnResumePoint | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Pass:
    """A pass that waits: for the VAE to encode its init image, or for its prompts to be encoded.

    `guided`: some step may need an unconditional row. `prompts` are the prompt and, where guided, the negative prompt.
    `source` is the encoded init image. `following` is the next pass; `earlier` and `calls_before` are the time and the
    model calls of the passes before. `resume_from` is where another engine had got to. `submitted` is when this pass
    began to wait, `arrived` when its request came, both by the monotonic clock.
    """

    request: GenerationRequest
    table: SamplerTable
    guided: bool
    future: ImageFuture
    claim: Claim
    context: CallerContext
    callbacks: Callbacks
    prompts: tuple[TokenizedPrompt, ...]
    source: Source | None = None
    following: "Pass | None" = None
    earlier: Timings = field(default_factory=Timings)
    calls_before: int = 0
    resume_from: ResumePoint | None = None
    submitted: float = field(default_factory=time.monotonic)
    arrived: float = field(default_factory=time.monotonic)

    @property
    def pass_index(self) -> int:
        """0 in the first pass, 1 in the second."""
        return int(self.calls_before > 0)

    @property
    def needs_source(self) -> bool:
        """Whether the VAE has to encode an init image before the first step.

        A second pass does not ask: it begins with the first pass's image, or with the state of a resume point.
        """
        return self.request.init is not None and self.pass_index == 0

    @property
    def pixel_size(self) -> tuple[int, int]:
        """Width and height of the image that this pass makes."""
        return self.request.width, self.request.height

    @property
    def num_pixels(self) -> int:
        """The same as a number."""
        return self.request.width * self.request.height

    @property
    def total_calls(self) -> int:
        """Model calls of all passes."""
        following = self.following.table.num_model_calls if self.following else 0
        return self.calls_before + self.table.num_model_calls + following

    @property
    def calls_left(self) -> int:
        """Those still to do, before the first step of this pass here."""
        return self.total_calls - self.calls_before - (self.resume_from.step_index if self.resume_from else 0)

    def work(self, vae_scale_factor: int) -> Work:
        """The model calls of this pass and of those that follow."""
        size = (self.request.height // vae_scale_factor, self.request.width // vae_scale_factor)
        own = PassWork(size, 2 if self.guided else 1, self.table.num_model_calls)
        return (own, *(self.following.work(vae_scale_factor) if self.following is not None else ()))

    def progress(self, step_index: int) -> Progress:
        """How far the whole request is after `step_index` of this pass's model calls."""
        done = self.calls_before + step_index
        taken_here = step_index - (self.resume_from.step_index if self.resume_from else 0)
        spent = time.monotonic() - self.submitted
        eta_s = spent / max(taken_here, 1) * (self.total_calls - done)
        return Progress(step=done, steps=self.total_calls, eta_s=eta_s)

    def previews_at(self, step_index: int) -> bool:
        """Whether a preview is due after `step_index` of this pass's model calls. Previews are evenly spaced."""
        total, wanted, done = self.total_calls, self.context.previews, self.calls_before + step_index
        return done < total and any(round(total * part / (wanted + 1)) == done for part in range(1, wanted + 1))

    def tell(self, progress: Progress) -> None:
        """Call `on_progress`."""
        call = self.callbacks.on_progress
        if call is not None:
            run_guarded("on_progress", lambda _: call(progress), [self])

    def fail(self, error: DarkroomError) -> None:
        """Settle the future; the engine's threads drop what belongs to a settled future."""
        self.future.settle(error)


def plan_passes(
    request: GenerationRequest,
    *,
    family: ModelFamily,
    tables: SamplerTables,
    context: CallerContext,
    callbacks: Callbacks,
    resume_from: ResumePoint | None,
) -> Pass:
    """The pass to begin with. Checks sizes, compiles the tables of all passes, splits prompts into tokens, reads LoRAs.

    This may take a second.

    Raises:
        InvalidRequest: a step count its sampler refuses, a size the VAE cannot make, latents enlarged for an
            inpainting UNet, or a prompt of too many chunks.
        GenerationFailed: a LoRA's file cannot be read.
    """
    check_sizes(request, family)
    if request.init is None and family.mask_channels:
        request = replace(request, init=blank_init(request.width, request.height))
    guided = request.sampling.guidance_scale > 1 and not family.distilled
    future = ImageFuture()
    first = Pass(
        request=request,
        table=table_of(request, tables),
        guided=guided,
        prompts=tokenize_prompts(request, family, guided),
        future=future,
        claim=Claim(future),
        context=context,
        callbacks=callbacks,
    )
    second = second_pass(first, tables)
    if resume_from is not None and resume_from.pass_index > 0:
        if second is not None and not family.mask_channels:
            return replace(second, resume_from=resume_from)
        # Begin anew: an inpainting UNet's extra channels follow from the first image, which no resume point has.
        resume_from = None
    return replace(first, following=second, resume_from=resume_from)


def tokenize_prompts(request: GenerationRequest, family: ModelFamily, guided: bool) -> tuple[TokenizedPrompt, ...]:
    """The prompt, and the negative prompt where guided. In diffusers, `clip_skip` leaves the latter alone.

    Raises InvalidRequest, see `tokenize_prompt`.
    """
    sampling = request.sampling
    weighted = sampling.prompt_syntax == "a1111"
    loras = tuple((lora.name, lora.weight) for lora in request.loras)
    prompt = Prompt(text=request.prompt, weighted=weighted, clip_skip=sampling.clip_skip, loras=loras)
    negative = Prompt(text=sampling.negative_prompt, negative=True, weighted=weighted, loras=loras)
    found = [tokenize_prompt(prompt, family, request.max_prompt_chunks)]
    if guided:
        try:
            found.append(tokenize_prompt(negative, family, request.max_prompt_chunks))
        except InvalidRequest as error:
            raise error.with_field_names({"prompt": "negative_prompt"}) from error
    return tuple(found)


def tokenize_prompt(prompt: Prompt, family: ModelFamily, max_chunks: int) -> TokenizedPrompt:
    """The prompt in chunks. Raises InvalidRequest where they are more than `max_chunks`, or its weights are wrong."""
    found = family.tokenize(prompt)
    if found.num_chunks > max_chunks:
        limit = f"must have at most {max_chunks} chunks of tokens, and has {found.num_chunks}"
        raise InvalidRequest("prompt", prompt.text, limit)
    return found


def is_planned_at_once(request: GenerationRequest, tables: SamplerTables) -> bool:
    """Whether planning needs no work of torch: one pass, no LoRAs, and a table that is compiled already."""
    sampling = request.sampling
    key = (sampling.sampler, sampling.scheduler, sampling.num_inference_steps, request.skipped_steps)
    return request.hires is None and not request.loras and tables.is_compiled(*key)


def second_pass(first: Pass, tables: SamplerTables) -> Pass | None:
    """A hires request's second pass, image to image; it still lacks the image. None where no hires is asked for."""
    hires = first.request.hires
    if hires is None:
        return None
    request = replace(
        first.request,
        width=hires.width,
        height=hires.height,
        sampling=first.request.sampling.model_copy(update={"num_inference_steps": hires.num_inference_steps}),
        init=InitImage(raster=NO_IMAGE_YET, strength=hires.strength),
        variation=None,
        hires=None,
    )
    return replace(first, request=request, table=table_of(request, tables), calls_before=first.table.num_model_calls)


def table_of(request: GenerationRequest, tables: SamplerTables) -> SamplerTable:
    """The request's sampler as a table, compiled when first asked for."""
    sampling = request.sampling
    return tables.table(sampling.sampler, sampling.scheduler, sampling.num_inference_steps, request.skipped_steps)


def check_sizes(request: GenerationRequest, family: ModelFamily) -> None:
    """Raise InvalidRequest where a side is no multiple of a latent's pixels, or the second pass cannot begin."""
    if request.hires is not None and request.hires.upscaler == "latent" and family.mask_channels:
        # The UNet's extra channels are encoded from the first pass's pixels.
        raise InvalidRequest("hires.upscaler", "latent", "must be lanczos with an inpainting model")
    factor = family.autoencoder.scale_factor
    sides = {"width": request.width, "height": request.height}
    if request.hires is not None:
        sides |= {"hires.width": request.hires.width, "hires.height": request.hires.height}
    for name, side in sides.items():
        if side < factor or side % factor:
            raise InvalidRequest(name, side, f"must be a multiple of {factor}")
