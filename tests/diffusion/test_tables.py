"""The tables of a checkpoint: what it can follow, what is refused, what is kept."""

import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from types import SimpleNamespace

import diffusers
import pytest
import torch

from serve_app.diffusion.compiler import compile_table
from serve_app.diffusion.table import SamplerTable
from serve_app.diffusion.tables import SamplerTables
from serve_app.errors import InvalidRequest, ModelLoadError
from serve_app.requests.samplers import SAMPLERS, SCHEDULES
from tests.diffusion.scheduler_configs import CANNOT_FOLLOW_SAMPLE, EPSILON, SAMPLE, VELOCITY


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


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    tables = SamplerTables(EPSILON)
    with pytest.raises(InvalidRequest, match="one of automatic, linear, sgm_uniform for sampler ddim, got 'karras'"):
        tables.table("ddim", "karras", 10)
    with pytest.raises(InvalidRequest, match="sampler: must be one of euler, euler_a"):
        tables.table("dpm_adaptive", "automatic", 10)


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


def test_the_oldest_table_makes_room_for_a_new_one() -> None:
    two = SamplerTables(EPSILON).table("euler", "karras", 7).num_bytes * 2
    tables = SamplerTables(EPSILON, max_bytes=two)
    first, second = (tables.table("euler", "karras", steps) for steps in (5, 6))
    tables.table("euler", "karras", 7)
    assert tables.table("euler", "karras", 6) is second
    assert tables.table("euler", "karras", 5) is not first


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


@pytest.mark.parametrize("config", [EPSILON, VELOCITY])
def test_usual_checkpoints_can_follow_every_sampler_and_schedule(config: dict[str, object]) -> None:
    assert SamplerTables(config).followable_samplers() == {name: one.allowed for name, one in SAMPLERS.items()}


def test_what_a_checkpoint_can_follow_is_known_and_compiles() -> None:
    tables = SamplerTables(SAMPLE)
    followable = tables.followable_samplers()
    assert set(followable) == set(SAMPLERS) - set(CANNOT_FOLLOW_SAMPLE)
    for sampler, schedules in followable.items():
        assert schedules == SAMPLERS[sampler].allowed
        assert tables.table(sampler, schedules[-1], 10).prediction_type == "sample"


@pytest.mark.parametrize("sampler", CANNOT_FOLLOW_SAMPLE)
def test_a_sampler_that_the_checkpoint_cannot_follow_is_refused_with_those_it_can(sampler: str) -> None:
    with pytest.raises(InvalidRequest, match=r"sampler: must be one of euler, ddim, .* for this checkpoint, got"):
        SamplerTables(SAMPLE).table(sampler, "automatic", 10)


def test_a_checkpoint_that_no_sampler_can_follow_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"scheduler_config\.json: no sampler can follow it; euler must suit"):
        SamplerTables({**EPSILON, "prediction_type": "flow"}).followable_samplers()


@pytest.mark.parametrize("schedule", ["linear", "exponential", "beta"])
def test_a_schedule_that_is_asked_for_replaces_the_checkpoints_own(schedule: str) -> None:
    own, other = SamplerTables({**EPSILON, "use_karras_sigmas": True}), SamplerTables(EPSILON)
    assert torch.equal(own.table("euler", "automatic", 8).steps, other.table("euler", "karras", 8).steps)
    assert torch.equal(own.table("euler", schedule, 8).steps, other.table("euler", schedule, 8).steps)


class FiveOutputs:
    """A scheduler whose step reads the last five model outputs, by Adams and Bashforth."""

    order = 1
    init_noise_sigma = 1.0
    config = SimpleNamespace(prediction_type="epsilon")

    def set_timesteps(self, num_inference_steps: int) -> None:
        self.timesteps = torch.arange(num_inference_steps, 0, -1)
        self.outputs: list[torch.Tensor] = []

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample

    def add_noise(self, sample: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample + noise

    def step(
        self, output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        self.outputs = [*self.outputs[-4:], output]
        return (sample - sum(self.outputs) / len(self.outputs),)  # type: ignore[operator]


def test_a_sampler_that_remembers_too_much_is_refused_when_compiled() -> None:
    assert compile_table(FiveOutputs(), 3, "toy").num_slots == 3
    with pytest.raises(InvalidRequest, match="sampler: must keep at most 4 latents, and it keeps 5, got 'toy'"):
        compile_table(FiveOutputs(), 12, "toy")
