"""The diffusers scheduler of a sampler and a schedule, for one checkpoint."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import diffusers

from serve_app.errors import ModelLoadError
from serve_app.requests.samplers import SAMPLERS, SCHEDULES

NONLINEAR = ("thresholding", "clip_sample")
SIGMA_SCHEDULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""Options that exclude each other: a schedule that a request names replaces the checkpoint's own."""


def refuse_nonlinear(scheduler_config: Mapping[str, object]) -> None:
    """Raise ModelLoadError where the checkpoint asks for something that no linear recurrence can do."""
    for option in NONLINEAR:
        if scheduler_config.get(option):
            raise ModelLoadError(
                f"scheduler/scheduler_config.json: {option} must be false: it is not linear, so it cannot be batched"
            )


def new_scheduler(scheduler_config: Mapping[str, object], sampler: str, schedule: str) -> Any:
    """The diffusers scheduler itself, from the checkpoint's config and the options of `sampler` and `schedule`."""
    scheduler_class = getattr(diffusers, SAMPLERS[sampler].diffusers_class)
    return scheduler_class.from_config(_options(scheduler_class, scheduler_config, sampler, schedule))


def new_quick_scheduler(scheduler_config: Mapping[str, object], sampler: str, schedule: str) -> Any:
    """As `new_scheduler`, for one that `set_timesteps` is called on before anything else.

    The constructors of Heun and DPM2 call it for all training timesteps, which takes up to a quarter of a second.
    """
    scheduler_class = getattr(diffusers, SAMPLERS[sampler].diffusers_class)

    class Constructed(scheduler_class):
        def set_timesteps(self, num_inference_steps: int, *args: Any, **kwargs: Any) -> None:
            super().set_timesteps(2, *args, **kwargs)

    scheduler: Any = Constructed(**_options(scheduler_class, scheduler_config, sampler, schedule))
    scheduler.__class__ = scheduler_class
    return scheduler


def _options(
    scheduler_class: Any, scheduler_config: Mapping[str, object], sampler: str, schedule: str
) -> dict[str, object]:
    accepted = signature(scheduler_class.__init__).parameters
    own = {
        name: value
        for name, value in scheduler_config.items()
        if schedule == "automatic" or name not in SIGMA_SCHEDULES
    }
    options = {"clip_sample": False, **own, **SAMPLERS[sampler].options, **SCHEDULES[schedule].options}
    return {name: value for name, value in options.items() if name in accepted}
