"""Sampler and schedule names as people write them: any case, A1111's spelling, the talk's constants."""

from serve_app.errors import InvalidRequest, UnknownName
from serve_app.requests.samplers import SAMPLERS, SCHEDULES

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

SCHEDULE_LABELS = {
    "automatic": "Automatic",
    "linear": "Uniform",
    "sgm_uniform": "SGM Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "beta": "Beta",
}
"""How A1111 spells each schedule."""

A1111_SCHEDULES = {
    "dpm2": "karras",
    "dpm2_a": "karras",
    "dpmpp_2m": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_3m_sde": "exponential",
    "dpmpp_2s": "karras",
}
"""The schedule that A1111 gives a sampler where a request names none."""

SCHEDULE_ALIASES = {"uniform": "linear", "normal": "linear", "simple": "sgm_uniform"}

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
    return known, read_schedule(scheduler)


def read_schedule(text: str) -> str:
    """`SGM Uniform` to `sgm_uniform`."""
    plain = _plain(text)
    return SCHEDULE_ALIASES.get(plain, plain)


def read_a1111_names(sampler: str | None, scheduler: str | None) -> tuple[str | None, str | None]:
    """As `read_names`; `DPM++ 2M Karras` is a sampler and its schedule, and A1111's own defaults are filled in."""
    if sampler is not None and read_sampler(sampler) not in SAMPLERS:
        name, _, last = sampler.rpartition(" ")
        if read_sampler(name) in SAMPLERS and _plain(last) in SCHEDULES:
            sampler, scheduler = name, scheduler or last
    known = None if sampler is None else read_sampler(sampler)
    if known is not None and known not in SAMPLERS:
        raise UnknownName("sampler_name", sampler, f"must be one of {', '.join(SAMPLER_LABELS.values())}")
    if known is not None and (scheduler is None or _plain(scheduler) == "automatic"):
        return known, A1111_SCHEDULES.get(known, "automatic")
    return read_names(known, scheduler)


def _plain(text: str) -> str:
    return text.strip().lower().replace("++", "pp").replace(" ", "_").replace("-", "_")
