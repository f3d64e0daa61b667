"""The configuration, whole: what one YAML's `args` may say. Frozen, strict, and free of surprises.

AppConfig > ModelConfig > EngineConfig. An unknown key, a wrong type or a contradiction is refused at start with the
key's path. Nothing else in Darkroom reads the environment.
"""

from collections.abc import Sequence
from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
Family = Literal["stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Defaults(Strict):
    """What a request that says nothing gets."""

    num_inference_steps: Positive = 25
    guidance_scale: float = 7.5
    sampler: str = "dpmpp_2m"
    scheduler: str = "automatic"
    negative_prompt: str = ""
    prompt_syntax: Literal["a1111", "plain"] = "a1111"
    clip_skip: Annotated[int, Field(ge=0)] = 0


class Limits(Strict):
    """What a request may ask; sizes in pixels, and `size_multiple` for both sides.

    `max_input_pixels` is what a sent image may have; `max_images` is the most one request may ask for.
    """

    min_side: Positive = 64
    max_side: Positive = 2048
    max_pixels: Positive = 1024 * 1024
    size_multiple: Positive = 8
    max_num_inference_steps: Positive = 150
    max_prompt_characters: Positive = 2000
    min_guidance_scale: float = 0.0
    max_guidance_scale: float = 30.0
    max_images: Positive = 8
    max_loras: Positive = 4
    max_lora_weight: Annotated[float, Field(gt=0)] = 4.0
    max_input_pixels: Positive = 4096 * 4096

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is over max_side {self.max_side}")
        if self.min_guidance_scale > self.max_guidance_scale:
            raise ValueError(f"min_guidance_scale {self.min_guidance_scale} is over {self.max_guidance_scale}")
        return self


class EngineConfig(Strict):
    """How one replica batches.

    `max_rows` caps the UNet rows of a step (a guided image takes two); without it the cap comes from the curve measured
    at warm-up. `deterministic` pads every forward to exactly `bucket_rows` rows and encodes and decodes one at a time,
    so that pictures are bit-identical whatever shares the batch.
    """

    max_rows: Positive | None = None
    deterministic: bool = False
    bucket_rows: Positive = 8
    encode_batch: Positive = 16
    decode_batch: Positive = 1
    prompt_cache: Positive = 512
    image_threads: Positive = 2
    stall_seconds: Seconds = 120.0


class Autoscaling(Strict):
    """Replicas of one model: how many, and how fast their number changes."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Positive = 1
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 8.0
    upscale_delay_s: Annotated[float, Field(ge=0)] = 10.0
    downscale_delay_s: Annotated[float, Field(ge=0)] = 300.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is over max_replicas {self.max_replicas}")
        return self


class Replicas(Strict):
    """Where one model runs. `num_gpus` is a share of one GPU (0.25) or a whole number of them.

    `max_ongoing_requests` is about twice a batch, so that the backlog stays in the router, where new replicas can take
    it; what waits there beyond `max_queued_requests` is answered 429.
    """

    num_gpus: Annotated[float, Field(ge=0)] = 0.0
    num_cpus: Annotated[float, Field(ge=0)] = 1.0
    autoscaling: Autoscaling = Autoscaling()
    max_ongoing_requests: Positive = 16
    max_queued_requests: Positive = 100
    retry_after_s: Positive = 5
    graceful_shutdown_timeout_s: Seconds = 120.0
    health_check_period_s: Seconds = 10.0
    health_check_timeout_s: Seconds = 30.0

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError(f"num_gpus {self.num_gpus} is over 1 and no whole number")
        return self


class ModelConfig(Strict):
    """One checkpoint and how it is served.

    `source` is `builtin:emoji`, a diffusers directory, a single `.safetensors` file, or a hub id (then `revision` and
    `variant` apply); `vae` is another VAE's source, for a checkpoint that has none or a poorer one. `family` is needed
    only for a single file that does not tell, `config` (a diffusers directory) only for one of unusual shape.
    `prediction_type` overrides what a checkpoint's scheduler config says or, in a single file, cannot say.
    `native_size` is the side, in pixels, of the square the model draws best: larger requests are drawn at its area and
    resized. `vae_tile` decodes larger pictures in tiles of that many pixels. `loras` and `embeddings` (textual
    inversion, used by writing the name in a prompt) name `.safetensors` files; LoRAs stay loaded up to
    `lora_cache_mb`. `cpu_threads` is how many threads torch takes on a CPU; by default every core. `ai_mark` writes
    "made by a trained algorithm" into the files' metadata. `safety` is what becomes of a picture that the safety
    checker flags: `flag` tells it in a header, `blur` blurs it as well, `refuse` answers an error.
    """

    source: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    variant: str | None = None
    family: Family | None = None
    config: str | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    vae: str | None = None
    vae_tile: Annotated[int, Field(ge=64, multiple_of=8)] | None = None
    loras: dict[Name, str] = {}
    embeddings: dict[Name, str] = {}
    lora_cache_mb: Positive = 1024
    ai_mark: bool = True
    safety: Literal["off", "flag", "blur", "refuse"] = "off"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    allow_pickle: bool = False
    compile: bool = False
    channels_last: bool = False
    cpu_threads: Positive | None = None
    native_size: Positive = 512
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    engine: EngineConfig = EngineConfig()
    replicas: Replicas = Replicas()

    @model_validator(mode="after")
    def _native_size_fits(self) -> Self:
        if self.native_size % self.limits.size_multiple:
            raise ValueError(f"native_size {self.native_size} is no multiple of {self.limits.size_multiple}")
        return self


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
