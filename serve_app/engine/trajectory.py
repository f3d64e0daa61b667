"""An image being denoised: its sampler state, and what each step needs of it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from serve_app.diffusion.table import pad_matrices
from serve_app.engine.image_future import ImageFuture
from serve_app.engine.init_latents import InitialState
from serve_app.engine.passes import Pass
from serve_app.errors import DarkroomError, GenerationFailed
from serve_app.models.model_family import Conditioning
from serve_app.requests.events import ResumePoint, StepTime, Timings

SHORT_PROMPT_TOKENS = 320
"""Prompts up to here always share a forward: four chunks of CLIP's."""

CLEAN = torch.tensor([1.0, 0.0])
"""The noising (signal, noise) of clean latents."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NextState:
    """What a step leads to: the state (slots, c, h, w), and the estimate of the clean latents where it is wanted."""

    state: torch.Tensor
    denoised: torch.Tensor | None
    interrupted: bool
    answers_preview_request: bool


class Trajectory:
    """A pass in the batch. Its whole state is `state` (slots, c, h, w) float32, `step_index` and the noise generator.

    Args:
        pass_: what is asked.
        conditioning: the encoded `pass_.prompts`.
        initial: where the first step begins.
        encode_seconds: how long the prompts took.
        deterministic: share forwards only with rows whose prompts are as long, so that padding never changes.
    """

    def __init__(
        self,
        pass_: Pass,
        conditioning: Sequence[Conditioning],
        initial: InitialState,
        encode_seconds: float,
        deterministic: bool = False,
    ) -> None:
        self.pass_ = pass_
        self.table = pass_.table
        self.matrices = pad_matrices(self.table.steps).float()
        self.input_scale = self.table.input_scale.float()
        self.conditioning = conditioning[0]
        self.negative = conditioning[1] if pass_.guided else None
        self.noise = initial.noise
        self.mask_channels = initial.mask_channels
        self.repaint = initial.repaint
        self.state = torch.zeros(self.table.num_slots, *initial.latents.shape, device=initial.latents.device)
        self.state[0] = initial.latents
        self.step_index = 0
        self.denoised: torch.Tensor | None = None
        self._step_noise: torch.Tensor | None = None
        self.interrupted = False
        self.device_seconds = 0.0
        self.steps: list[StepTime] = []
        self.encode_seconds = encode_seconds
        self._deterministic = deterministic
        self.first_step_at: float | None = None
        self.last_step_end = 0.0
        self.saved_at: float | None = None
        if pass_.resume_from is not None:
            self._resume_from(pass_.resume_from)

    def _resume_from(self, point: ResumePoint) -> None:
        """Raises ValueError where the point belongs to another request."""
        if point.shape != tuple(self.state.shape):
            raise ValueError(f"a resume point of shape {point.shape} for a state of shape {tuple(self.state.shape)}")
        state = torch.frombuffer(bytearray(point.state), dtype=torch.float32)
        self.state = state.view(point.shape).to(self.state.device)
        self.noise.skip_to(point.draws)
        self.step_index = point.step_index

    def resume_point(self) -> ResumePoint:
        """All that another engine needs to go on from here."""
        return ResumePoint(
            pass_index=self.pass_.pass_index,
            step_index=self.step_index,
            draws=self.noise.drawn - (self._step_noise is not None),
            shape=tuple(self.state.shape),
            state=self.state.cpu().numpy().tobytes(),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Latent height and width."""
        return self.state.shape[-2], self.state.shape[-1]

    @property
    def group(self) -> Hashable:
        """What rows of one forward need equal: the size, and how long the prompts are, roughly.

        A row is padded to the longest prompt of its forward. Padding one chunk to four costs less than a forward of its
        own, padding it to eight costs more (`benchmarks/prompts.py`).
        """
        negative = self.unconditional
        lengths = (self.conditioning.num_tokens, negative.num_tokens if negative else 0)
        if self._deterministic:
            return self.size, lengths
        return self.size, ((max(lengths) - 1) // SHORT_PROMPT_TOKENS).bit_length()

    @property
    def unconditional(self) -> Conditioning | None:
        """The conditioning of this step's unconditional row; None where the step is not guided."""
        sampling = self.pass_.request.sampling
        done = self.step_index / self.table.num_model_calls
        return self.negative if sampling.guidance_start <= done < sampling.guidance_end else None

    @property
    def is_batch(self) -> bool:
        """Whether it gives way to others."""
        return self.pass_.context.is_batch

    @property
    def arrived(self) -> float:
        """When the request was submitted to this engine, by the monotonic clock."""
        return self.pass_.arrived

    @property
    def calls(self) -> int:
        """Model calls of the whole request, all passes."""
        return self.pass_.total_calls

    @property
    def calls_left(self) -> int:
        """Those still to do."""
        return 0 if self.interrupted else self.calls - self.pass_.calls_before - self.step_index

    @property
    def model_rows(self) -> int:
        """UNet rows this step takes."""
        return 1 if self.unconditional is None else 2

    @property
    def finished(self) -> bool:
        """True after the last step, or when interrupted."""
        return self.interrupted or self.step_index == self.table.num_model_calls

    @property
    def following(self) -> Pass | None:
        """The next pass; none after an interrupt."""
        return None if self.interrupted else self.pass_.following

    @property
    def enlarges_latents(self) -> bool:
        """Whether the next pass begins with this one's latents, so that they are not decoded."""
        hires = self.pass_.request.hires
        return self.following is not None and hires is not None and hires.upscaler == "latent"

    @property
    def future(self) -> ImageFuture:
        """The caller's."""
        return self.pass_.future

    @property
    def timings(self) -> Timings:
        """Seconds spent up to the last step, in all passes; `decode` only has those of earlier passes."""
        earlier, first_step_at = self.pass_.earlier, self.first_step_at or self.last_step_end
        return Timings(
            queue=earlier.queue + first_step_at - self.pass_.submitted - self.encode_seconds,
            encode=earlier.encode + self.encode_seconds,
            denoise=earlier.denoise + self.last_step_end - first_step_at,
            decode=earlier.decode,
            device=earlier.device + self.device_seconds,
            steps=(*earlier.steps, *self.steps),
        )

    @property
    def pixel_size(self) -> tuple[int, int]:
        """See `Pass`."""
        return self.pass_.pixel_size

    def fail(self, error: DarkroomError) -> None:
        """See `Pass.fail`."""
        self.pass_.fail(error)

    def final_latents(self) -> torch.Tensor:
        """The latents (c, h, w) to decode once finished. After an interrupt: the model's estimate of the clean ones.

        Raises:
            GenerationFailed: they are not finite numbers.
        """
        latents = self.state[0]
        if self.interrupted and self.denoised is not None:
            latents = self.denoised if self.repaint is None else self.repaint.restore(self.denoised, CLEAN)
        if not torch.isfinite(latents).all():
            raise GenerationFailed("the latents are not finite numbers: try another dtype")
        return latents

    def note_step(self, step: StepTime, model_rows: int) -> None:
        """Count this trajectory's share of a step in which it had `model_rows` rows."""
        if self.first_step_at is None:
            self.first_step_at = self.saved_at = step.began
        self.last_step_end = step.began + step.seconds
        self.device_seconds += step.seconds * model_rows / step.rows
        if self.pass_.context.traceparent:
            self.steps.append(step)

    def draw_noise(self) -> torch.Tensor | None:
        """This step's noise, (c, h, w) on the CPU; None where the sampler draws none.

        It is drawn once, so that a step that failed and is tried again draws the same image.
        """
        if self._step_noise is None and self.table.draws_noise[self.step_index]:
            self._step_noise = self.noise.draw()
        return self._step_noise

    def next_state(self, state: torch.Tensor, model_output: torch.Tensor) -> NextState:
        """What the step leads to: `state` is the table's. What a mask keeps is put back, with that step's noise.

        Nothing changes here yet, so that the step can be tried again.
        """
        future, following = self.pass_.future, self.step_index + 1
        last = following == self.table.num_model_calls
        interrupted = future.is_interrupted and not last
        asked = future.is_preview_requested
        estimate = interrupted or asked or self.pass_.previews_at(following)
        denoised = self.table.denoise(self.step_index, self.state[0], model_output) if estimate else None
        state = state[: self.table.num_slots]
        if self.repaint is not None:
            state[0] = self.repaint.restore(state[0], self.table.noising[following])
        if interrupted or last:
            # A view would keep the whole batch's state in memory until this image is decoded.
            state = state[:1].clone()
        return NextState(state=state, denoised=denoised, interrupted=interrupted, answers_preview_request=asked)

    def advance_to(self, after: NextState) -> None:
        """The step is done."""
        self.state, self.denoised, self.interrupted = after.state, after.denoised, after.interrupted
        self.step_index += 1
        self._step_noise = None
        if after.answers_preview_request:
            self.future.take_preview_request()
