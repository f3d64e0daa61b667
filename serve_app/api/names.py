"""Sampler and schedule names as people write them: any case, A1111's spelling, the talk's constants."""

from serve_app.diffusion.samplers import SAMPLERS
from serve_app.errors import InvalidRequest

SAMPLER_LABELS = {
    "euler": "Euler",
    "euler_a": "Euler a",
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "pndm": "PLMS",
    "lms": "LMS",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_2s": "DPM++ 2S",
    "unipc": "UniPC",
    "deis": "DEIS",
    "lcm": "LCM",
    "tcd": "TCD",
}
"""How A1111 spells each sampler."""

ALIASES = {"plms": "pndm", "k_dpm_2": "dpm2", "k_dpm_2_a": "dpm2_a"}


def read_sampler(text: str) -> str:
    """`DPM++ 2M` to `dpmpp_2m`; a name nobody knows comes back as it was, for the caller to refuse."""
    plain = _plain(text)
    for name in (plain, plain.removeprefix("k_"), ALIASES.get(plain, plain)):
        if name in SAMPLERS:
            return name
    return text


def read_names(sampler: str | None, scheduler: str | None) -> tuple[str | None, str | None]:
    """Sampler and schedule of a request. `PNDM` as a scheduler means the sampler, as the talk has it."""
    known = read_sampler(sampler) if sampler is not None else None
    if scheduler is None:
        return known, None
    if _plain(scheduler) == "pndm":
        if known not in (None, "pndm"):
            raise InvalidRequest("scheduler", scheduler, f"is a sampler of its own: leave out sampler {sampler}")
        return "pndm", "automatic"
    return known, _plain(scheduler)


def _plain(text: str) -> str:
    return text.strip().lower().replace("++", "pp").replace(" ", "_").replace("-", "_")
