"""The application: its models, and all that stands around them."""

from collections.abc import Sequence
from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serve_app.config.model import ModelConfig, Name, Positive, Seconds, Strict


class IngressConfig(Strict):
    """The HTTP side. A body must arrive within `body_timeout_s`; prompts are logged only with `log_prompts`."""

    num_replicas: Positive = 1
    num_cpus: Annotated[float, Field(ge=0)] = 0.5
    max_ongoing_requests: Positive = 1000
    max_body_bytes: Positive = 32 * 1024 * 1024
    body_timeout_s: Seconds = 60.0
    cors_origins: tuple[str, ...] = ()
    log_prompts: bool = False


class SafetyConfig(Strict):
    """The safety checker, one deployment for all models whose `safety` is not off.

    `checker` is a directory or hub id of diffusers' StableDiffusionSafetyChecker with its preprocessor config.
    """

    checker: str = "CompVis/stable-diffusion-safety-checker"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    num_gpus: Annotated[float, Field(ge=0, le=1)] = 0.0
    num_cpus: Annotated[float, Field(ge=0)] = 1.0
    max_batch_size: Positive = 8
    batch_wait_s: Seconds = 0.01


class PresetConfig(Strict):
    """A request that the operator has written; `{name}` in `prompt` is a variable that the caller fills in."""

    prompt: Annotated[str, Field(min_length=1)]
    model: str | None = None
    negative_prompt: str | None = None
    width: Positive | None = None
    height: Positive | None = None
    num_inference_steps: Positive | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    max_variable_characters: Positive = 200

    @property
    def variables(self) -> list[str]:
        """The template's names, in order."""
        return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.prompt) if name))

    @model_validator(mode="after")
    def _template_is_sound(self) -> Self:
        if any(not name.isidentifier() for name in self.variables):
            raise ValueError(f"prompt: every variable must be a name in braces, got {self.variables}")
        return self


class KeysConfig(Strict):
    """Who may call. `file` is a JSON list of keys, hashed; without it anybody may.

    Make a key, and its line for the file, with `python -m serve_app.api.keys NAME`.
    """

    file: str | None = None


class ResultsConfig(Strict):
    """Where images wait that a caller asked to get as a link: a folder or any fsspec URL, `s3://bucket/prefix`.

    Links are signed with the content of `secret_file`, or with a secret that lasts as long as the application.
    """

    url: str = "memory://darkroom-results"
    max_mb: Positive = 1024
    max_age_s: Seconds = 3600.0
    secret_file: str | None = None


class TracingConfig(Strict):
    """OpenTelemetry: spans go to the collector at `endpoint` (OTLP over HTTP, `http://collector:4318/v1/traces`).

    A `sample_ratio` of the requests that bring no trace of their own is traced.
    """

    endpoint: Annotated[str, Field(pattern=r"^https?://")]
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    service_name: str = "darkroom"


class AppConfig(Strict):
    """Everything under `args:` of an application.

    `gpus` is how many GPUs the cluster starts with: where it is given, the replicas that must run at start are packed
    onto them, fraction by fraction, and what does not fit is refused.
    """

    models: Annotated[dict[Name, ModelConfig], Field(min_length=1)]
    default_model: str
    ingress: IngressConfig = IngressConfig()
    safety: SafetyConfig = SafetyConfig()
    keys: KeysConfig = KeysConfig()
    results: ResultsConfig = ResultsConfig()
    tracing: TracingConfig | None = None
    presets: dict[Name, PresetConfig] = {}
    aliases: dict[str, str] = {}
    gpus: Positive | None = None

    @property
    def checks_safety(self) -> bool:
        """Whether any model wants its pictures reviewed."""
        return any(model.safety != "off" for model in self.models.values())

    @model_validator(mode="after")
    def _gpus_suffice(self) -> Self:
        shares = {f"safety x{self.safety.num_gpus:g}": (self.safety.num_gpus, 1)} if self.checks_safety else {}
        for name, model in self.models.items():
            replicas = model.replicas
            shares[f"{name} x{replicas.num_gpus:g}"] = (replicas.num_gpus, replicas.autoscaling.min_replicas)
        wanted = sorted((share for share, count in shares.values() for _ in range(count) if share), reverse=True)
        needed = count_gpus(wanted)
        if self.gpus is not None and needed > self.gpus:
            listed = ", ".join(f"{name} ({count} at least)" for name, (share, count) in shares.items() if share)
            raise ValueError(f"gpus: {self.gpus} are given, but what runs at start needs {needed}: {listed}")
        return self

    @model_validator(mode="after")
    def _results_are_shared(self) -> Self:
        if self.ingress.num_replicas > 1 and self.results.url.startswith("memory:"):
            raise ValueError("results.url: memory: is one process's own, but ingress.num_replicas is over 1")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        named = {"default_model": self.default_model}
        named |= {f"aliases.{alias}": model for alias, model in self.aliases.items()}
        named |= {f"presets.{name}.model": preset.model for name, preset in self.presets.items() if preset.model}
        for key, model in named.items():
            if model not in self.models:
                raise ValueError(f"{key} {model!r} is none of {', '.join(self.models)}")
        return self


def count_gpus(shares: Sequence[float]) -> int:
    """GPUs that replicas of these shares need, packed first fit, largest first; whole numbers take whole GPUs."""
    whole = sum(int(share) for share in shares if share >= 1)
    free: list[float] = []
    for share in (share for share in shares if share < 1):
        place = next((index for index, room in enumerate(free) if room >= share - 1e-9), None)
        if place is None:
            free.append(1 - share)
        else:
            free[place] -= share
    return whole + len(free)
