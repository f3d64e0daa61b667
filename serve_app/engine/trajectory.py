"""A request in flight, phase by phase: `Arrival` (to encode), `Trajectory` (to denoise), `Exposure` (to decode)."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from serve_app.diffusion.noise import NoiseSource
from serve_app.diffusion.table import SamplerTable
from serve_app.engine.request import GeneratedImage, GenerationRequest, Progress
from serve_app.models.family import Conditioning, Prompt

STATE_SLOTS = 4
"""The most any sampler needs. Every row's step is padded to it: were the product's shape, and so its rounding, to
depend on the company, pictures would not be bit-identical."""

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, eq=False)
class Ticket:
    """What every phase carries: the request, the caller's future, and when it came."""

    request: GenerationRequest
    future: Future[GeneratedImage]
    on_progress: OnProgress | None = None
    submitted: float = field(default_factory=time.monotonic)

    @property
    def guided(self) -> bool:
        """Whether each step needs the unconditional twin."""
        return self.request.guidance_scale > 1

    @property
    def prompts(self) -> list[Prompt]:
        """What must be encoded before the first step: the prompt, and the negative one where guided."""
        prompt = [Prompt(self.request.prompt)]
        return [*prompt, Prompt(self.request.negative_prompt, negative=True)] if self.guided else prompt


@dataclass(frozen=True, eq=False)
class Arrival:
    """Accepted and waiting for its prompts to be encoded."""

    ticket: Ticket
    table: SamplerTable


class Trajectory:
    """Being denoised. Its whole state is `state` (slots, c, h, w) float32, `step_index`, and the noise generator."""

    def __init__(
        self,
        arrival: Arrival,
        conditioning: list[Conditioning],
        latent_shape: tuple[int, int, int],
        device: torch.device,
        encode_seconds: float,
    ) -> None:
        self.ticket = arrival.ticket
        self.table = arrival.table
        self.matrices = pad_matrices(arrival.table.steps).float()
        self.input_scale = arrival.table.input_scale.float()
        self.conditioning = conditioning[0]
        self.unconditional = conditioning[1] if arrival.ticket.guided else None
        self.noise = NoiseSource(arrival.ticket.request.seed, latent_shape)
        self.state = torch.zeros(arrival.table.num_slots, *latent_shape, device=device)
        self.state[0] = (self.noise.draw() * arrival.table.init_noise_sigma).to(device)
        self.step_index = 0
        self.encode_seconds = encode_seconds
        self.first_step: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Latent height and width: the batch key."""
        return self.state.shape[-2], self.state.shape[-1]

    @property
    def model_rows(self) -> int:
        """UNet rows a step takes."""
        return 1 if self.unconditional is None else 2

    @property
    def finished(self) -> bool:
        """Whether the last model call is done."""
        return self.step_index == self.table.num_model_calls

    def draw_noise(self) -> torch.Tensor | None:
        """This step's noise, (c, h, w) on the CPU; None where the sampler draws none."""
        return self.noise.draw() if self.table.draws_noise[self.step_index] else None


def pad_matrices(steps: torch.Tensor) -> torch.Tensor:
    """`[A | B | D]` (calls, k, k + 2) to (calls, STATE_SLOTS, STATE_SLOTS + 2): B and D stay the last two columns."""
    calls, known, _ = steps.shape
    padded = torch.zeros(calls, STATE_SLOTS, STATE_SLOTS + 2, dtype=steps.dtype)
    padded[:, :known, :known] = steps[:, :, :known]
    padded[:, :known, STATE_SLOTS:] = steps[:, :, known:]
    return padded


@dataclass(frozen=True, eq=False)
class Exposure:
    """Denoised and waiting for the VAE: `latents` (c, h, w) float32, and the seconds spent so far."""

    ticket: Ticket
    latents: torch.Tensor
    queue_seconds: float
    encode_seconds: float
    denoised_at: float
    denoise_seconds: float
