"""Compile a diffusers scheduler into a `SamplerTable` by running it on one-hot vectors instead of images.

Before each step the latents and every latent-shaped tensor that the scheduler keeps are replaced by one-hot vectors, as
are the model output and the noise. Every scheduler for latents is linear in all of them, so the vectors that a step
leaves behind are the rows of coefficients. Nothing is solved for, and no scheduler is known by name: its memory is
every tensor of the latents' shape among its attributes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from serve_app.diffusion.table import STATE_SLOTS, SamplerTable
from serve_app.errors import InvalidRequest

DIRECTIONS = 16
MODEL_OUTPUT, NOISE = DIRECTIONS - 2, DIRECTIONS - 1

Slot = tuple[str, int | None]


def compile_table(scheduler: Any, num_inference_steps: int, name: str, skipped: int = 0) -> SamplerTable:
    """The table of a fresh `scheduler` over `num_inference_steps`; `name` is what errors call it.

    The first `skipped` steps are left out, as in diffusers' image-to-image pipelines: a multistep sampler starts anew.

    Raises:
        InvalidRequest: a prediction type that the scheduler does not implement, a step count that it refuses or turns
            into numbers that are not finite, or a memory of more than `STATE_SLOTS` latents.
    """
    try:
        timesteps, steps = _trace_all(scheduler, num_inference_steps, skipped)
    except NotImplementedError as error:
        raise InvalidRequest("sampler", name, f"must suit the checkpoint ({error})") from error
    except (ValueError, IndexError, AssertionError, ZeroDivisionError) as error:
        reason = str(error).strip().partition("\n")[0] or "it has no such schedule"
        raise InvalidRequest("num_inference_steps", num_inference_steps, f"must suit {name} ({reason})") from error
    matrices = _compact(steps)
    slots = matrices.shape[1]
    if slots > STATE_SLOTS:
        raise InvalidRequest("sampler", name, f"must keep at most {STATE_SLOTS} latents, and it keeps {slots}")
    if not torch.isfinite(matrices).all():
        raise InvalidRequest("num_inference_steps", num_inference_steps, f"must give {name} a finite schedule")
    return SamplerTable(
        steps=matrices,
        input_scale=torch.tensor([step.input_scale for step in steps], dtype=torch.float64),
        timesteps=torch.tensor([float(timestep) for timestep in timesteps]),
        draws_noise=tuple(step.draws_noise for step in steps),
        init_noise_sigma=float(scheduler.init_noise_sigma),
        prediction_type=str(scheduler.config.prediction_type),
        noising=torch.stack([*(step.noising for step in steps), torch.tensor([1.0, 0.0], dtype=torch.float64)]),
    )


@dataclass(frozen=True)
class _Step:
    """One traced step: `rows[slot]` is the slot's vector afterwards; `columns[slot]` was its direction before."""

    rows: Mapping[Slot | None, torch.Tensor]
    columns: Mapping[Slot | None, int]
    input_scale: float
    draws_noise: bool
    noising: torch.Tensor


class _OneHotNoise(TorchFunctionMode):
    """Makes `torch.randn` return the noise direction, in this thread only; `drawn` says whether it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.randn:
            self.drawn = True
            return _one_hot(NOISE)
        return func(*args, **(kwargs or {}))


def _one_hot(direction: int) -> torch.Tensor:
    """(1, DIRECTIONS, 1, 1) float64: schedulers expect dimensions for batch, channels and pixels."""
    vector = torch.zeros(1, DIRECTIONS, 1, 1, dtype=torch.float64)
    vector[0, direction] = 1
    return vector


def _memory(scheduler: Any) -> dict[Slot, torch.Tensor]:
    """Every latent-shaped tensor among the scheduler's attributes, and in lists among them."""
    found: dict[Slot, torch.Tensor] = {}
    for name, value in vars(scheduler).items():
        entries = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, entry in entries:
            if isinstance(entry, torch.Tensor) and entry.shape == (1, DIRECTIONS, 1, 1):
                found[name, index] = entry
    return found


def _rebase(scheduler: Any) -> dict[Slot | None, int]:
    """Replace all memory by one-hot vectors. Returns each slot's direction; the latents (None) have 0."""
    columns: dict[Slot | None, int] = {None: 0}
    if len(_memory(scheduler)) >= MODEL_OUTPUT:
        raise NotImplementedError(f"it keeps {MODEL_OUTPUT} latents or more")
    for direction, (name, index) in enumerate(_memory(scheduler), start=1):
        if index is None:
            setattr(scheduler, name, _one_hot(direction))
        else:
            getattr(scheduler, name)[index] = _one_hot(direction)
        columns[name, index] = direction
    return columns


def _trace_all(scheduler: Any, num_inference_steps: int, skipped: int) -> tuple[torch.Tensor, list[_Step]]:
    """The timesteps, and each one's step, but for the first `skipped` steps."""
    scheduler.set_timesteps(num_inference_steps)
    begin = skipped * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        # Without it, the scheduler searches its timesteps by value, and fails where one occurs twice.
        scheduler.set_begin_index(begin)
    timesteps = scheduler.timesteps[begin:]
    return timesteps, [_trace(scheduler, timestep) for timestep in timesteps]


def _trace(scheduler: Any, timestep: torch.Tensor) -> _Step:
    """Run one step on one-hot vectors and read the memory that it leaves."""
    columns = _rebase(scheduler)
    latents = _one_hot(0)
    noised = scheduler.add_noise(latents, _one_hot(NOISE), timestep.reshape(1))
    input_scale = float(scheduler.scale_model_input(latents, timestep)[0, 0, 0, 0])
    with _OneHotNoise() as noise:
        stepped = scheduler.step(_one_hot(MODEL_OUTPUT), timestep, latents, return_dict=False)[0]
    rows: dict[Slot | None, torch.Tensor] = {None: stepped[0, :, 0, 0]}
    rows |= {slot: vector[0, :, 0, 0] for slot, vector in _memory(scheduler).items()}
    return _Step(
        rows=rows,
        columns=columns,
        input_scale=input_scale,
        draws_noise=noise.drawn,
        noising=noised[0, [0, NOISE], 0, 0],
    )


def _compact(steps: list[_Step]) -> torch.Tensor:
    """Drop the memory that no later step reads, and stack the rest: (calls, slots, slots + 2)."""
    live: list[list[Slot | None]] = [[None]]
    for step in reversed(steps):
        read = torch.stack([step.rows[slot].abs() for slot in live[0]]).sum(0)
        remembered = [slot for slot, column in step.columns.items() if slot is not None and read[column] != 0]
        live.insert(0, [None, *remembered])
    slots = max(len(names) for names in live)
    matrices = torch.zeros(len(steps), slots, slots + 2, dtype=torch.float64)
    for step, before, after, matrix in zip(steps, live[:-1], live[1:], matrices, strict=True):
        for row, slot in enumerate(after):
            matrix[row, : len(before)] = step.rows[slot][[step.columns[name] for name in before]]
            matrix[row, slots:] = step.rows[slot][[MODEL_OUTPUT, NOISE]]
    return matrices
