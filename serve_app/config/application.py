"""The application's `args`: the names of its models, and what is fixed when it starts."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from serve_app.config.hub import Revision, check_revision
from serve_app.config.strict import Name, Positive, Seconds, Strict


class Placement(Strict):
    """What each replica of a deployment takes of its node."""

    num_cpus: Annotated[float, Field(ge=0, description="CPUs that a replica reserves.")] = 1.0
    num_gpus: Annotated[float, Field(ge=0, description="A share of one GPU (0.25), or a whole number of GPUs.")] = 0.0

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError(f"num_gpus: must be at most 1 or a whole number, got {self.num_gpus:g}")
        return self


class TracingConfig(Strict):
    """OpenTelemetry traces."""

    endpoint: Annotated[
        str,
        Field(
            pattern=r"^https?://", description="The collector: OTLP over HTTP, such as http://collector:4318/v1/traces."
        ),
    ]
    sample_ratio: Annotated[
        float, Field(ge=0, le=1, description="The share of requests without a trace of their own that is traced.")
    ] = 1.0
    service_name: Annotated[str, Field(description="The service's name in traces.")] = "darkroom"


class UsageConfig(Strict):
    """Where it is kept what each caller has used. One process counts for all ingress replicas."""

    url: Annotated[
        str | None,
        Field(
            pattern=r"^(file:///|rediss?://)",
            description="A folder, such as file:///var/lib/darkroom/usage, that every node has; or a Redis server, "
            "such as redis://host:6379/0. Without it, the counts are lost when the process that holds them ends.",
        ),
    ] = None
    password_file: Annotated[
        str | None, Field(min_length=1, description="A file whose content is the password of Redis.")
    ] = None

    @model_validator(mode="after")
    def _url_is_one(self) -> Self:
        try:
            _ = urlsplit(self.url or "").port
        except ValueError as error:
            raise ValueError(f"url: must be a URL ({error}), got {self.url!r}") from error
        return self


class AppConfig(Strict):
    """Everything under `args:` of the application. A change restarts every deployment."""

    models: Annotated[
        dict[Name, Placement], Field(min_length=1, description="Each model's name, and what a replica of it takes.")
    ]
    ingress: Annotated[Placement, Field(description="What an ingress replica takes.")] = Placement(num_cpus=0.5)
    safety: Annotated[
        Placement | None, Field(description="What the safety checker takes. Needed where a model's safety is not off.")
    ] = None
    tracing: Annotated[TracingConfig | None, Field(description="Send OpenTelemetry traces.")] = None
    usage: Annotated[UsageConfig, Field(description="Where it is kept what each caller has used.")] = UsageConfig()
    gpus: Annotated[
        Positive | None, Field(description="How many GPUs the cluster starts with: shares that do not fit are refused.")
    ] = None
    max_gpus: Annotated[
        Positive | None,
        Field(description="How many GPUs the cluster may grow to: shares are refused that do not fit at max_replicas."),
    ] = None


class SafetyConfig(Strict):
    """The `user_config` of the deployment `safety`: the safety checker that all models share."""

    checker: Annotated[
        str,
        Field(
            min_length=1,
            description="A directory or hub id: diffusers' StableDiffusionSafetyChecker with its preprocessor, "
            "or a checkpoint with the folders safety_checker and feature_extractor.",
        ),
    ] = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: Annotated[Revision | None, Field(description="The hub revision of checker.")] = None
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Field(description="Where it runs.")] = "auto"
    max_batch_size: Annotated[Positive, Field(description="The most images that it checks at once.")] = 8
    batch_wait_s: Annotated[Seconds, Field(description="How long it waits for more images, seconds.")] = 0.01

    @field_validator("revision")
    @classmethod
    def _pins_a_hub_id(cls, revision: str | None, info: ValidationInfo) -> str | None:
        return check_revision(revision, info, "checker")
