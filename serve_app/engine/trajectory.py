"""A request in flight, phase by phase.

`EncodeJob` (a picture for the VAE encoder) -> `PendingRequest` (prompts to encode) -> `Trajectory` (to denoise) -> `DecodeJob`
(to decode); a second pass goes round again with the `Pass` that `following` names.
"""

from dataclasses import dataclass

import torch

from serve_app.engine.init_latents import Source, Start
from serve_app.engine.passes import Pass
from serve_app.models.model_family import Conditioning
from serve_app.requests.events import Progress, ResumePoint, StepTime, Timings
from serve_app.requests.request import InitImage

STATE_SLOTS = 4
"""The most any sampler needs. Every row's step is padded to it: were the product's shape, and so its rounding, to
depend on the company, pictures would not be bit-identical."""

NO_NOISE = torch.tensor([1.0, 0.0])
"""All signal: clean latents."""


@dataclass(frozen=True, eq=False)
class EncodeJob:
    """A picture waiting for the VAE's encoder."""

    pass_: Pass
    init: InitImage


@dataclass(frozen=True, eq=False)
class PendingRequest:
    """Accepted and waiting for its prompts to be encoded; `source` is the encoded picture it starts from, if any."""

    pass_: Pass
    source: Source | None = None


class Trajectory:
    """Being denoised. Its whole state is `state` (slots, c, h, w) float32, `step_index`, and the noise generator."""

    def __init__(self, pass_: Pass, conditioning: list[Conditioning], start: Start, encode_seconds: float) -> None:
        self.pass_ = pass_
        self.table = pass_.table
        self.matrices = pad_matrices(self.table.steps).float()
        self.input_scale = self.table.input_scale.float()
        self.conditioning = conditioning[0]
        self.unconditional = conditioning[1] if pass_.guided else None
        self.noise = start.noise
        self.mask_channels = start.mask_channels
        self.repaint = start.repaint
        self.state = torch.zeros(self.table.num_slots, *start.latents.shape, device=start.latents.device)
        self.state[0] = start.latents
        self.step_index = 0
        self.denoised: torch.Tensor | None = None
        self.interrupt = False
        self.device_seconds = 0.0
        self.steps: list[StepTime] = []
        self.encode_seconds = encode_seconds
        self.first_step: float | None = None
        self.saved: float | None = None
        if pass_.resume_from is not None:
            self._resume(pass_.resume_from)

    def _resume(self, checkpoint: ResumePoint) -> None:
        """Go on as if the steps had been taken here; raises ValueError where it is of another request."""
        if checkpoint.shape != tuple(self.state.shape):
            raise ValueError(f"a checkpoint of shape {checkpoint.shape} for a state of {tuple(self.state.shape)}")
        state = torch.frombuffer(bytearray(checkpoint.state), dtype=torch.float32)
        self.state = state.view(checkpoint.shape).to(self.state.device)
        self.noise.skip_to(checkpoint.draws)
        self.step_index = checkpoint.step_index

    def checkpoint(self) -> ResumePoint:
        """Where it stands."""
        content = self.state.cpu().numpy().tobytes()
        return ResumePoint(self.pass_.pass_index, self.step_index, self.noise.drawn, tuple(self.state.shape), content)

    @property
    def size(self) -> tuple[int, int]:
        """Latent height and width: the batch key."""
        return self.state.shape[-2], self.state.shape[-1]

    @property
    def twin(self) -> Conditioning | None:
        """What the unconditional twin of this step needs; None where the step is not guided."""
        sampling = self.pass_.request.sampling
        done = self.step_index / self.table.num_model_calls
        return self.unconditional if sampling.guidance_start <= done < sampling.guidance_end else None

    @property
    def priority(self) -> int:
        """Higher goes first."""
        return self.pass_.callbacks.context.priority

    @property
    def arrived(self) -> float:
        """When the request came, by the monotonic clock."""
        return self.pass_.submitted

    @property
    def calls(self) -> int:
        """Model calls of the whole request, all passes."""
        return self.pass_.total_calls

    @property
    def calls_left(self) -> int:
        """Those still to do."""
        return self.calls - self.pass_.calls_before - self.step_index

    @property
    def model_rows(self) -> int:
        """UNet rows this step takes."""
        return 1 if self.twin is None else 2

    @property
    def finished(self) -> bool:
        """Whether the last model call is done, be it that the caller wanted no more."""
        return self.interrupt or self.step_index == self.table.num_model_calls

    @property
    def result(self) -> torch.Tensor:
        """The latents (c, h, w) to decode once finished: where it was cut short, what they are taken to become."""
        if not self.interrupt or self.denoised is None:
            return self.state[0]
        return self.denoised if self.repaint is None else self.repaint.restore(self.denoised, NO_NOISE)

    def note_step(self, step: StepTime, model_rows: int) -> None:
        """Count this trajectory's share of a step in which it had `model_rows` rows."""
        self.first_step = self.first_step or step.began
        self.saved = self.saved or step.began
        self.device_seconds += step.seconds * model_rows / step.rows
        if self.pass_.callbacks.context.traceparent:
            self.steps.append(step)

    def draw_noise(self) -> torch.Tensor | None:
        """This step's noise, (c, h, w) on the CPU; None where the sampler draws none."""
        return self.noise.draw() if self.table.draws_noise[self.step_index] else None

    def advance_to(self, state: torch.Tensor, model_output: torch.Tensor) -> None:
        """Take the next step's `state`; what a mask keeps is put back, as noisy as this step should be."""
        last = self.step_index + 1 == self.table.num_model_calls
        self.interrupt = self.pass_.future.is_interrupted and not last
        shown = self.interrupt or self.pass_.previews_at(self.step_index + 1)
        self.denoised = self.table.denoise(self.step_index, self.state[0], model_output) if shown else None
        self.state = state[: self.table.num_slots]
        self.step_index += 1
        if self.repaint is not None:
            self.state[0] = self.repaint.restore(self.state[0], self.table.noising[self.step_index])


def pad_matrices(steps: torch.Tensor) -> torch.Tensor:
    """`[A | B | D]` (calls, k, k + 2) to (calls, STATE_SLOTS, STATE_SLOTS + 2): B and D stay the last two columns."""
    calls, known, _ = steps.shape
    padded = torch.zeros(calls, STATE_SLOTS, STATE_SLOTS + 2, dtype=steps.dtype)
    padded[:, :known, :known] = steps[:, :, :known]
    padded[:, :known, STATE_SLOTS:] = steps[:, :, known:]
    return padded


@dataclass(frozen=True, eq=False)
class DecodeJob:
    """Denoised and waiting for the VAE: `latents` (c, h, w) float32, and the seconds spent so far, `decode` still 0."""

    pass_: Pass
    latents: torch.Tensor
    timings: Timings
    denoised_at: float


@dataclass(frozen=True, eq=False)
class Preview:
    """What the model takes the picture to be: clean latents (c, h, w) on the way, and how far that is."""

    pass_: Pass
    latents: torch.Tensor
    progress: Progress
