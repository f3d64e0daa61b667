"""Compile a diffusers scheduler into a `SamplerTable` by running it on one-hot vectors instead of images.

Before each step the latents and every latent-shaped tensor the scheduler keeps are replaced by fresh one-hot
directions ("re-based"); the model output and the noise are one-hot too. Each scheduler that serves latents is linear in
all of them, so what the step leaves behind, read off by direction, *is* the row of coefficients. Nothing is solved for,
and no scheduler is known by name: its memory is whatever of the probe's shape hangs on its attributes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import diffusers
import torch
from torch.overrides import TorchFunctionMode

from serve_app.diffusion.table import SamplerTable
from serve_app.errors import InvalidRequest, ModelLoadError
from serve_app.requests.samplers import SAMPLERS, SCHEDULES

DIRECTIONS = 16
MODEL_OUTPUT, NOISE = DIRECTIONS - 2, DIRECTIONS - 1
NONLINEAR = ("thresholding", "clip_sample")

Slot = tuple[str, int | None]


def refuse_nonlinear(scheduler_config: Mapping[str, object]) -> None:
    """Raise ModelLoadError where the checkpoint asks for something no linear recurrence can do."""
    for option in NONLINEAR:
        if scheduler_config.get(option):
            raise ModelLoadError(
                f"scheduler/scheduler_config.json: {option}: true is not linear and cannot be batched; set it to false"
            )


def compile_table(scheduler: Any, num_inference_steps: int, name: str, skipped: int = 0) -> SamplerTable:
    """The table of a fresh `scheduler` over `num_inference_steps`; `name` is what errors call it.

    The first `skipped` steps are left out, as diffusers' image-to-image pipelines do: a multistep sampler starts anew.

    Raises:
        InvalidRequest: a step count the scheduler itself refuses, or makes no finite numbers of.
    """
    try:
        scheduler.set_timesteps(num_inference_steps)
        begin = skipped * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            # Looked up by value, a timestep that occurs twice sends the scheduler past its own end.
            scheduler.set_begin_index(begin)
        timesteps = scheduler.timesteps[begin:]
        steps = [_trace(scheduler, timestep) for timestep in timesteps]
    except (ValueError, IndexError, AssertionError, ZeroDivisionError) as error:
        reason = str(error).strip().partition("\n")[0] or "it has no such schedule"
        raise InvalidRequest("num_inference_steps", num_inference_steps, f"must suit {name} ({reason})") from error
    matrices = _compact(steps)
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


def new_scheduler(scheduler_config: Mapping[str, object], sampler: str, schedule: str) -> Any:
    """The diffusers scheduler itself, as `Class.from_config(checkpoint's config, **options)` gives it."""
    scheduler_class = getattr(diffusers, SAMPLERS[sampler].diffusers_class)
    accepted = signature(scheduler_class.__init__).parameters
    options = {"clip_sample": False, **scheduler_config, **SAMPLERS[sampler].options, **SCHEDULES[schedule].options}
    return scheduler_class.from_config({name: value for name, value in options.items() if name in accepted})


@dataclass(frozen=True)
class _Step:
    """One traced step: `rows[slot]` is what the slot holds afterwards, over the directions that `columns` names."""

    rows: Mapping[Slot | None, torch.Tensor]
    columns: Mapping[Slot | None, int]
    input_scale: float
    draws_noise: bool
    noising: torch.Tensor


class _OneHotNoise(TorchFunctionMode):
    """Answers `torch.randn` with the noise direction, in this thread only, and remembers that it was asked."""

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
    """(1, DIRECTIONS, 1, 1) float64: schedulers expect a batch of channels and pixels."""
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
    """Replace all memory by one-hot directions; slot to its direction, with the latents (None) at 0."""
    columns: dict[Slot | None, int] = {None: 0}
    for direction, (name, index) in enumerate(_memory(scheduler), start=1):
        if index is None:
            setattr(scheduler, name, _one_hot(direction))
        else:
            getattr(scheduler, name)[index] = _one_hot(direction)
        columns[name, index] = direction
    return columns


def _trace(scheduler: Any, timestep: torch.Tensor) -> _Step:
    """Run one step on directions and read what it leaves."""
    columns = _rebase(scheduler)
    latents = _one_hot(0)
    noised = scheduler.add_noise(latents, _one_hot(NOISE), timestep.reshape(1))
    input_scale = float(scheduler.scale_model_input(latents, timestep)[0, 0, 0, 0])
    with _OneHotNoise() as noise:
        stepped = scheduler.step(_one_hot(MODEL_OUTPUT), timestep, latents, return_dict=False)[0]
    rows: dict[Slot | None, torch.Tensor] = {None: stepped[0, :, 0, 0]}
    rows |= {slot: vector[0, :, 0, 0] for slot, vector in _memory(scheduler).items()}
    return _Step(rows, columns, input_scale, noise.drawn, noised[0, [0, NOISE], 0, 0])


def _compact(steps: list[_Step]) -> torch.Tensor:
    """Drop memory nobody reads again and stack the rest: (calls, slots, slots + 2)."""
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
