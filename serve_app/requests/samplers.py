"""The names of samplers and schedules, and which go together. Names only: no torch, no diffusers.

A sampler is a diffusers scheduler class with options; a schedule is how it spaces its noise levels, as options too.
Adding a sampler is one line in `SAMPLERS`, adding a schedule one line in `SCHEDULES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serve_app.errors import InvalidRequest


@dataclass(frozen=True)
class Schedule:
    """How noise levels are spaced: AUTOMATIC1111's `label` for it, and diffusers scheduler options.

    `aliases` are other names that clients use.
    """

    label: str
    options: Mapping[str, object] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


SCHEDULES: Mapping[str, Schedule] = {
    "automatic": Schedule("Automatic"),
    "linear": Schedule("Uniform", {"timestep_spacing": "linspace"}, ("uniform", "normal")),
    "sgm_uniform": Schedule("SGM Uniform", {"timestep_spacing": "trailing"}, ("simple",)),
    "karras": Schedule("Karras", {"use_karras_sigmas": True}),
    "exponential": Schedule("Exponential", {"use_exponential_sigmas": True, "timestep_spacing": "linspace"}),
    "beta": Schedule("Beta", {"use_beta_sigmas": True, "timestep_spacing": "linspace"}),
}
"""`automatic` is the sampler's own spacing, as the checkpoint configures it."""


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler class with `options`, AUTOMATIC1111's `label` for it, and the schedules it can follow.

    `a1111_schedule` is what AUTOMATIC1111 uses where a request names no schedule. `aliases` are other names that
    clients use. `calls_per_step` are the model calls of a step: two for the samplers of second order.
    """

    label: str
    diffusers_class: str
    schedules: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    a1111_schedule: str = "automatic"
    aliases: tuple[str, ...] = ()
    calls_per_step: int = 1

    @property
    def allowed(self) -> tuple[str, ...]:
        """Every schedule this sampler can follow."""
        return ("automatic", *self.schedules)


_SPACINGS = ("linear", "sgm_uniform")
_SIGMAS = ("karras", "exponential", "beta")
_ALL = (*_SPACINGS, *_SIGMAS)
_MULTISTEP, _SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_2M = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_2S = {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True}

SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler("Euler", "EulerDiscreteScheduler", _ALL),
    "euler_a": Sampler("Euler a", "EulerAncestralDiscreteScheduler", _SPACINGS),
    "ddim": Sampler("DDIM", "DDIMScheduler", _SPACINGS),
    "ddpm": Sampler("DDPM", "DDPMScheduler", _SPACINGS),
    "pndm": Sampler("PLMS", "PNDMScheduler", _SPACINGS, {"skip_prk_steps": True}, aliases=("plms",)),
    "lms": Sampler("LMS", "LMSDiscreteScheduler", _ALL),
    "heun": Sampler("Heun", "HeunDiscreteScheduler", _ALL, calls_per_step=2),
    "dpm2": Sampler("DPM2", "KDPM2DiscreteScheduler", _ALL, {}, "karras", ("k_dpm_2",), 2),
    "dpm2_a": Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler", _ALL, {}, "karras", ("k_dpm_2_a",), 2),
    "dpmpp_2m": Sampler("DPM++ 2M", _MULTISTEP, _ALL, _2M, "karras"),
    "dpmpp_2m_sde": Sampler("DPM++ 2M SDE", _MULTISTEP, _ALL, {**_SDE, "solver_order": 2}, "exponential"),
    "dpmpp_3m_sde": Sampler("DPM++ 3M SDE", _MULTISTEP, _ALL, {**_SDE, "solver_order": 3}, "exponential"),
    "dpmpp_2s": Sampler("DPM++ 2S", _SINGLESTEP, _SIGMAS, _2S, "karras"),
    "unipc": Sampler("UniPC", "UniPCMultistepScheduler", _ALL, {"solver_order": 2, "solver_type": "bh2"}),
    "deis": Sampler("DEIS", "DEISMultistepScheduler", _ALL),
    "lcm": Sampler("LCM", "LCMScheduler", ()),
    "tcd": Sampler("TCD", "TCDScheduler", ()),
}


def find_sampler(text: str) -> str | None:
    """The sampler that `text` names, in any case and in AUTOMATIC1111's or k-diffusion's spelling; None if unknown."""
    plain = _normalize(text)
    names = (plain, plain.removeprefix("k_"))
    return next((name for name, one in SAMPLERS.items() if name in names or plain in one.aliases), None)


def find_schedule(text: str) -> str | None:
    """The schedule that `text` names, in any case and in AUTOMATIC1111's spelling; None if unknown."""
    plain = _normalize(text)
    return next((name for name, one in SCHEDULES.items() if plain == name or plain in one.aliases), None)


def read_names(sampler: str | None, scheduler: str | None) -> dict[str, str]:
    """The parameters `sampler` and `scheduler` as given, in our spelling; a name nobody knows stays as it was.

    `PNDM` as a scheduler means the sampler: diffusers calls its samplers schedulers.

    Raises:
        InvalidRequest: the scheduler names a sampler, and another sampler is given.
    """
    if scheduler is not None and find_schedule(scheduler) is None and find_sampler(scheduler) == "pndm":
        if sampler is not None and find_sampler(sampler) != "pndm":
            raise InvalidRequest(
                "scheduler", scheduler, f"must be a schedule: it is a sampler, and sampler is {sampler}"
            )
        return {"sampler": "pndm", "scheduler": "automatic"}
    found = {"sampler": sampler and (find_sampler(sampler) or sampler)}
    found["scheduler"] = scheduler and (find_schedule(scheduler) or scheduler)
    return {name: value for name, value in found.items() if value is not None}


def _normalize(text: str) -> str:
    return text.strip().lower().replace("++", "pp").replace(" ", "_").replace("-", "_")
