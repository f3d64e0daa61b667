"""Every sampler and schedule against the real diffusers scheduler, stepping real tensors."""

import copy
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from serve_app.diffusion.new_scheduler import new_quick_scheduler, new_scheduler
from serve_app.diffusion.table import SamplerTable, advance
from serve_app.diffusion.tables import SamplerTables
from serve_app.errors import InvalidRequest
from serve_app.requests.samplers import SAMPLERS
from tests.diffusion.scheduler_configs import CANNOT_FOLLOW_SAMPLE, EPSILON, SAMPLE, VELOCITY

CONFIGS = {"epsilon": EPSILON, "v_prediction": VELOCITY, "sample": SAMPLE}


class KeepFloat64(TorchFunctionMode):
    """Some schedulers round their latents to float32 before each step; this keeps the reference in float64.

    Without it the reference itself is off by up to 5e-6 (dpmpp_3m_sde, beta, 50 steps).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (
            func is torch.Tensor.to
            and args[1:] == (torch.float32,)
            and args[0].dtype == torch.float64
            and args[0].dim()
        ):
            return args[0]
        return func(*args, **(kwargs or {}))


def toy_model(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """Nonlinear, mixes pixels, depends on the timestep."""
    return torch.tanh(1.3 * latents.flip(-1) + 1e-4 * timestep)


def start(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(1, 4, 6, 6, generator=generator, dtype=torch.float64)


def run_scheduler(scheduler: Any, seed: int) -> list[torch.Tensor]:
    """The latents after every model call, by diffusers."""
    generator = torch.Generator().manual_seed(seed)
    draws = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    latents = start(generator) * scheduler.init_noise_sigma
    seen = []
    for timestep in scheduler.timesteps:
        output = toy_model(scheduler.scale_model_input(latents, timestep), float(timestep))
        latents = scheduler.step(output, timestep, latents, return_dict=False, **draws)[0]
        seen.append(latents)
    return seen


def prepared(scheduler: Any, steps: int) -> Any:
    """A copy that has been told its steps."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    return scheduler


def run_table(table: SamplerTable, seed: int, noise_dtype: torch.dtype) -> list[torch.Tensor]:
    """The latents after every model call, by the table."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.zeros(1, table.num_slots, 4, 6, 6, dtype=torch.float64)
    state[:, 0] = start(generator) * table.init_noise_sigma
    seen = []
    for call in range(table.num_model_calls):
        output = toy_model(state[:, 0] * table.input_scale[call], float(table.timesteps[call]))
        noise = torch.zeros(1, 4, 6, 6, dtype=torch.float64)
        if table.draws_noise[call]:
            noise = torch.randn(1, 4, 6, 6, generator=generator, dtype=noise_dtype).double()
        state = advance(state, table.steps[call : call + 1], output, noise)
        seen.append(state[:, 0])
    return seen


def worst_error(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Largest relative error over the whole trajectory."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs, strict=True))


def noise_dtype(sampler: str) -> torch.dtype:
    """The SDE solvers draw their noise in float32, whatever the latents are."""
    return torch.float32 if "sde" in sampler else torch.float64


def assert_table_matches(tables: SamplerTables, sampler: str, schedule: str, steps: int, scheduler: Any) -> None:
    """The table's latents are the scheduler's after every model call; or both have no finite numbers."""
    with KeepFloat64():
        theirs = run_scheduler(prepared(scheduler, steps), seed=steps)
    if not torch.isfinite(theirs[-1]).all():
        with pytest.raises(InvalidRequest, match="finite schedule"):
            tables.table(sampler, schedule, steps)
        return
    ours = run_table(tables.table(sampler, schedule, steps), steps, noise_dtype(sampler))
    assert worst_error(ours, theirs) < 1e-6, (schedule, steps)


IMPLEMENTED = [
    (sampler, prediction)
    for sampler in SAMPLERS
    for prediction in CONFIGS
    if prediction != "sample" or sampler not in CANNOT_FOLLOW_SAMPLE
]


@pytest.mark.parametrize(("sampler", "prediction"), IMPLEMENTED)
def test_every_pair_matches_diffusers(sampler: str, prediction: str) -> None:
    config = CONFIGS[prediction]
    tables = SamplerTables(config)
    for schedule in SAMPLERS[sampler].allowed:
        scheduler = new_quick_scheduler(config, sampler, schedule)
        for steps in (1, 4, 25) if schedule == "automatic" else (9,):
            assert_table_matches(tables, sampler, schedule, steps, scheduler)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_pair_matches_diffusers_over_many_step_counts(sampler: str, prediction: str) -> None:
    tables = SamplerTables(CONFIGS[prediction])
    for schedule in SAMPLERS[sampler].allowed:
        scheduler = new_scheduler(CONFIGS[prediction], sampler, schedule)
        for steps in (1, 4, 25, 50):
            assert_table_matches(tables, sampler, schedule, steps, scheduler)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_untouched_diffusers_agrees_too(sampler: str) -> None:
    theirs = run_scheduler(prepared(new_scheduler(EPSILON, sampler, "automatic"), 25), seed=3)
    table = SamplerTables(EPSILON).table(sampler, "automatic", 25)
    assert worst_error(run_table(table, 3, noise_dtype(sampler)), theirs) < 1e-6
