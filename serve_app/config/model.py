"""One model: its checkpoint, what it draws by default, what it may be asked, and where it runs."""

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
    so that pictures are bit-identical whatever shares the batch. Should a replica die, its images go on in another from
    where they were about `resume_interval_s` ago, or a step if that takes longer.
    """

    max_rows: Positive | None = None
    deterministic: bool = False
    bucket_rows: Positive = 8
    encode_batch: Positive = 16
    decode_batch: Positive = 1
    prompt_cache: Positive = 512
    image_threads: Positive = 2
    stall_seconds: Seconds = 120.0
    resume_interval_s: Seconds = 1.0


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

    `source` is `builtin:emoji`, a diffusers directory, a single `.safetensors` file, or a hub id (then `revision`
    and `variant` apply); `vae` is another VAE's source, for a checkpoint that has none or a poorer one; `preview`
    is the source of a tiny decoder (an AutoencoderTiny, such as `madebyollin/taesd`) that draws previews instead of
    a fitted linear map. `family` is needed only for a single file that does not tell, `config` (a diffusers
    directory) only for one of unusual shape. `prediction_type` overrides what a checkpoint's scheduler config says
    or, in a single file, cannot say. `native_size` is the side, in pixels, of the square the model draws best:
    larger requests are drawn at its area and resized. `vae_tile` decodes larger pictures in tiles of that many
    pixels. `loras` and `embeddings` (textual inversion, used by writing the name in a prompt) name `.safetensors`
    files; LoRAs stay loaded up to `lora_cache_mb`. `executor` runs the UNet: torch, torch compiled, or OpenVINO on
    a CPU. `cpu_threads` is how many threads it takes on a CPU; by default every core. `ai_mark` writes "made by a
    trained algorithm" into the files' metadata. `safety` is what becomes of a picture that the safety checker
    flags: `flag` tells it in a header, `blur` blurs it as well, `refuse` answers an error.
    """

    source: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    variant: str | None = None
    family: Family | None = None
    config: str | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    vae: str | None = None
    preview: str | None = None
    vae_tile: Annotated[int, Field(ge=64, multiple_of=8)] | None = None
    loras: dict[Name, str] = {}
    embeddings: dict[Name, str] = {}
    lora_cache_mb: Positive = 1024
    ai_mark: bool = True
    safety: Literal["off", "flag", "blur", "refuse"] = "off"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    allow_pickle: bool = False
    executor: Literal["eager", "compiled", "openvino"] = "eager"
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
