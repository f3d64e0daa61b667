"""Every sampler and schedule against the real diffusers scheduler, stepping real tensors."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from typing import Any

import diffusers
import pytest
import torch
from torch.overrides import TorchFunctionMode

from serve_app.diffusion.compiler import new_scheduler
from serve_app.diffusion.table import SamplerTable, advance
from serve_app.diffusion.tables import SamplerTables
from serve_app.errors import InvalidRequest, ModelLoadError
from serve_app.requests.samplers import SAMPLERS, SCHEDULES

EPSILON = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
}
VELOCITY = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": False,
    "prediction_type": "v_prediction",
}
CONFIGS = {"epsilon": EPSILON, "v_prediction": VELOCITY}


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


@pytest.mark.parametrize("prediction", CONFIGS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_pair_matches_diffusers(sampler: str, prediction: str) -> None:
    config = CONFIGS[prediction]
    # The SDE solvers draw their noise in float32, whatever the latents are.
    noise_dtype = torch.float32 if "sde" in sampler else torch.float64
    tables = SamplerTables(config)
    for schedule in SAMPLERS[sampler].allowed:
        scheduler = new_scheduler(config, sampler, schedule)
        for steps in (1, 4, 25, 50):
            reference = prepared(scheduler, steps)
            with KeepFloat64():
                theirs = run_scheduler(reference, seed=steps)
            if not torch.isfinite(theirs[-1]).all():
                with pytest.raises(InvalidRequest, match="finite schedule"):
                    tables.table(sampler, schedule, steps)
                continue
            ours = run_table(tables.table(sampler, schedule, steps), steps, noise_dtype)
            assert worst_error(ours, theirs) < 1e-6, (schedule, steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_untouched_diffusers_agrees_too(sampler: str) -> None:
    noise_dtype = torch.float32 if "sde" in sampler else torch.float64
    theirs = run_scheduler(prepared(new_scheduler(EPSILON, sampler, "automatic"), 25), seed=3)
    table = SamplerTables(EPSILON).table(sampler, "automatic", 25)
    assert worst_error(run_table(table, 3, noise_dtype), theirs) < 1e-6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_allowed_schedules_are_those_whose_options_the_class_takes(sampler: str) -> None:
    accepted = signature(getattr(diffusers, SAMPLERS[sampler].diffusers_class).__init__).parameters
    ignores_spacing = sampler in ("lcm", "tcd")  # they take the option and space by original_inference_steps
    expected = {
        name
        for name, schedule in SCHEDULES.items()
        if name == "automatic" or (next(iter(schedule.options)) in accepted and not ignores_spacing)
    }
    assert set(SAMPLERS[sampler].allowed) == expected


def test_a_step_count_the_sampler_refuses_is_named() -> None:
    with pytest.raises(InvalidRequest, match="num_inference_steps"):
        SamplerTables(EPSILON).table("lcm", "automatic", 60)


@pytest.mark.parametrize("option", ["thresholding", "clip_sample"])
def test_a_checkpoint_that_wants_something_nonlinear_is_refused_by_name(option: str) -> None:
    with pytest.raises(ModelLoadError, match=option):
        SamplerTables({**EPSILON, option: True})


def test_tables_are_compiled_once() -> None:
    tables = SamplerTables(EPSILON)
    assert tables.table("euler", "karras", 8) is tables.table("euler", "karras", 8)
    assert tables.table("euler", "karras", 8) is not tables.table("euler", "karras", 9)


def test_a_burst_of_threads_compiles_each_table_once() -> None:
    tables, threads = SamplerTables(EPSILON), 8
    barrier = threading.Barrier(threads)

    def ask(_: int) -> SamplerTable:
        barrier.wait()
        return tables.table("unipc", "karras", 40)

    with ThreadPoolExecutor(threads) as pool:
        first, *others = pool.map(ask, range(threads))
    assert all(table is first for table in others)


@pytest.mark.parametrize(("sampler", "calls", "slots"), [("euler", 20, 1), ("heun", 39, 3), ("pndm", 21, 4)])
def test_state_is_as_small_as_the_sampler_allows(sampler: str, calls: int, slots: int) -> None:
    table = SamplerTables(EPSILON).table(sampler, "automatic", 20)
    assert (table.num_model_calls, table.num_slots) == (calls, slots)
