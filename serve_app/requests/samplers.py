"""The names of samplers and schedules, and which go together. Names only: no torch, no diffusers.

A sampler is a diffusers scheduler class with options; a schedule is how it spaces its noise levels, as options too.
Adding a sampler is one line in `SAMPLERS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serve_app.errors import UnknownName

SIGMA_SCHEDULES = ("karras", "exponential", "beta")
SPACINGS = ("linear", "sgm_uniform")

SCHEDULES: Mapping[str, Mapping[str, object]] = {
    "automatic": {},
    "linear": {"timestep_spacing": "linspace"},
    "sgm_uniform": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True, "timestep_spacing": "linspace"},
    "beta": {"use_beta_sigmas": True, "timestep_spacing": "linspace"},
}
"""Schedule to scheduler options; `automatic` is the sampler's own, as the checkpoint configures it."""


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler class, its options, and the schedules it can follow besides `automatic`."""

    scheduler: str
    schedules: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def allowed(self) -> tuple[str, ...]:
        """Every schedule this sampler can follow."""
        return ("automatic", *self.schedules)


_ALL = (*SPACINGS, *SIGMA_SCHEDULES)
_SINGLESTEP = {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler("EulerDiscreteScheduler", _ALL),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", SPACINGS),
    "ddim": Sampler("DDIMScheduler", SPACINGS),
    "ddpm": Sampler("DDPMScheduler", SPACINGS),
    "pndm": Sampler("PNDMScheduler", SPACINGS, {"skip_prk_steps": True}),
    "lms": Sampler("LMSDiscreteScheduler", _ALL),
    "heun": Sampler("HeunDiscreteScheduler", _ALL),
    "dpm2": Sampler("KDPM2DiscreteScheduler", _ALL),
    "dpm2_a": Sampler("KDPM2AncestralDiscreteScheduler", _ALL),
    "dpmpp_2m": Sampler("DPMSolverMultistepScheduler", _ALL, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_sde": Sampler("DPMSolverMultistepScheduler", _ALL, {**_SDE, "solver_order": 2}),
    "dpmpp_3m_sde": Sampler("DPMSolverMultistepScheduler", _ALL, {**_SDE, "solver_order": 3}),
    "dpmpp_2s": Sampler("DPMSolverSinglestepScheduler", SIGMA_SCHEDULES, _SINGLESTEP),
    "unipc": Sampler("UniPCMultistepScheduler", _ALL, {"solver_order": 2, "solver_type": "bh2"}),
    "deis": Sampler("DEISMultistepScheduler", _ALL),
    "lcm": Sampler("LCMScheduler", ()),
    "tcd": Sampler("TCDScheduler", ()),
}


def check_pair(sampler: str, schedule: str) -> None:
    """Refuse an unknown sampler or schedule, and a schedule the sampler cannot follow, naming what is allowed."""
    if sampler not in SAMPLERS:
        raise UnknownName("sampler", sampler, f"must be one of {', '.join(SAMPLERS)}")
    if schedule not in SAMPLERS[sampler].allowed:
        allowed = ", ".join(SAMPLERS[sampler].allowed)
        raise UnknownName("scheduler", schedule, f"must be one of {allowed} for sampler {sampler}")
