"""Request parameters. Each is declared here, once.

The native API's bodies, presets, the config's `defaults:`, OpenAPI, infotext and docs/api.md follow from these
declarations. A new per-row value is one field of `SamplingParams`, read by the engine as `request.sampling.<name>`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from serve_app.errors import InvalidRequest
from serve_app.requests.image_files import ResizeMode, decode_base64

PromptSyntax = Literal["a1111", "plain"]
Upscaler = Literal["lanczos", "latent"]


@dataclass(frozen=True)
class Infotext:
    """How a parameter is written into an image's infotext: AUTOMATIC1111's key, `offset` added to the value.

    Without `always`, it is written only where it differs from the declared default.
    """

    key: str
    always: bool = False
    offset: int = 0


class Params(BaseModel):
    """Unknown fields and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class SamplingParams(Params):
    """The values of one row of the batch. The declared default holds where neither request nor config gives one."""

    negative_prompt: Annotated[str, Field(description="What to keep out. Needs a guidance scale above 1.")] = ""
    num_inference_steps: Annotated[int, Field(ge=1, description="Denoising steps."), Infotext("Steps", True)] = 25
    sampler: Annotated[
        str, Field(description="A sampler, such as euler, ddim or dpmpp_2m."), Infotext("Sampler", True)
    ] = "dpmpp_2m"
    scheduler: Annotated[
        str,
        Field(description="The noise schedule: automatic, linear, karras, exponential, beta or sgm_uniform."),
        Infotext("Schedule type", True),
    ] = "automatic"
    guidance_scale: Annotated[
        float,
        Field(description="How closely to follow the prompt. Guidance is off at 1 and below."),
        Infotext("CFG scale", True),
    ] = 7.5
    guidance_rescale: Annotated[
        float, Field(ge=0, le=1, description="The share of guidance rescale."), Infotext("CFG rescale")
    ] = 0.0
    guidance_start: Annotated[float, Field(ge=0, le=1, description="Guide from this fraction of the steps on.")] = 0.0
    guidance_end: Annotated[float, Field(ge=0, le=1, description="Guide up to this fraction of the steps.")] = 1.0
    prompt_syntax: Annotated[
        PromptSyntax,
        Field(description="a1111 reads (word:1.2), [word], BREAK and <lora:name:0.8>. plain reads no markup."),
    ] = "a1111"
    clip_skip: Annotated[
        int,
        Field(ge=0, description="How many of the text encoder's last layers to skip."),
        Infotext("Clip skip", offset=1),
    ] = 0


class LoraWeight(Params):
    """One of the model's LoRAs, and how strongly it acts."""

    name: Annotated[str, Field(description="A LoRA that the model is configured with.")]
    weight: Annotated[float, Field(description="How strongly it acts.")] = 1.0


class HiresParams(Params):
    """A second pass over the enlarged image."""

    scale: Annotated[float, Field(ge=1, le=8, description="Times the width or height that is not given.")] = 2.0
    width: Annotated[int | None, Field(description="Width of the second pass, pixels.")] = None
    height: Annotated[int | None, Field(description="Height of the second pass, pixels.")] = None
    strength: Annotated[float, Field(description="How much of the image is replaced, 0 to 1.")] = 0.7
    num_inference_steps: Annotated[
        int | None, Field(description="Denoising steps of the second pass. By default those of the first.")
    ] = None
    upscaler: Annotated[Upscaler, Field(description="lanczos enlarges the image, latent its latents (bilinear).")] = (
        "lanczos"
    )


ImageFile = Annotated[
    bytes,
    BeforeValidator(decode_base64),
    WithJsonSchema({"type": "string", "description": "Base64 or a data URL."}),
]
"""The bytes of an image file. A text is decoded: base64 or a data URL."""


def allow_null(schema: dict[str, Any]) -> None:
    """In JSON, null for a parameter that has a model default means that default."""
    for name in SamplingParams.model_fields:
        entry = dict(schema["properties"][name])
        kept = {key: entry.pop(key) for key in ("title", "description") if key in entry}
        entry.pop("default", None)
        schema["properties"][name] = {"anyOf": [entry, {"type": "null"}], "default": None, **kept}


Priority = Literal["interactive", "batch"]
"""The class of a request."""


class GenerationParams(SamplingParams):
    """Request parameters as given. What is not given comes from the model's defaults.

    With an image the prompt may be empty. Where neither side is given, the size is the image's, reduced to the native
    area.
    """

    model_config = ConfigDict(json_schema_extra=allow_null)

    prompt: Annotated[
        str,
        Field(description="What to show. May be empty with an image.", examples=["red apple on a blue background"]),
    ] = ""
    model: Annotated[str | None, Field(description="One of the configured models.")] = None
    width: Annotated[int | None, Field(description="Width of the file, pixels.")] = None
    height: Annotated[int | None, Field(description="Height of the file, pixels.")] = None
    seed: Annotated[int | None, Field(description="The same request and seed give the same image.")] = None
    subseed: Annotated[
        int | None, Field(description="Variation seed: the initial noise is moved towards its noise.")
    ] = None
    subseed_strength: Annotated[float, Field(ge=0, le=1, description="How far the noise is moved.")] = 0.0
    num_images: Annotated[int, Field(description="How many images. Image i has seed + i.")] = 1
    loras: Annotated[list[LoraWeight], Field(strict=False, description="LoRAs of the model, mixed by weight.")] = []
    image: Annotated[ImageFile | None, Field(description="A PNG, JPEG or WebP to start from, base64 or data URL.")] = (
        None
    )
    mask: Annotated[
        ImageFile | None, Field(description="An image of the same size: white is repainted, black is kept.")
    ] = None
    strength: Annotated[
        float | None,
        Field(description="How much of the image is replaced, 0 to 1. By default 0.8, and 1 with a mask."),
    ] = None
    resize_mode: Annotated[ResizeMode, Field(description="How the image is brought to another size.")] = "stretch"
    hires: Annotated[HiresParams | None, Field(description="A second pass at a larger size.")] = None
    priority: Annotated[
        Priority, Field(description="batch requests wait while interactive ones do not, for a minute at most.")
    ] = "interactive"
    deadline_ms: Annotated[
        int | None,
        Field(ge=1, le=10**9, description="Refuse the request at once if it would take longer, milliseconds."),
    ] = None
    output_format: Annotated[str, Field(description="png, jpeg or webp.")] = "png"
    quality: Annotated[int, Field(ge=1, le=100, description="Quality of jpeg and webp.")] = 95

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        nothing = {
            name: (None, "") if name in ("sampler", "scheduler") else (None,) for name in SamplingParams.model_fields
        }
        return {name: value for name, value in values.items() if value not in nothing.get(name, ())}

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling parameters that were given, by name."""
        return {name: getattr(self, name) for name in SamplingParams.model_fields if name in self.model_fields_set}

    def drop_files(self) -> None:
        """Keep of each image only that it was sent. Its pixels are in the request, and its file may be large."""
        for name in ("image", "mask"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, b"")  # the only change of a frozen object

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The parameters from another API's values; None means not given. Raises InvalidRequest."""
        try:
            return cls.model_validate({name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            raise first_mistake(error.errors()[0]) from error


def first_mistake(found: Mapping[str, Any]) -> InvalidRequest:
    """One of pydantic's error entries as the error that names the field, the value and the limit."""
    field = ".".join(str(part) for part in found["loc"]) or "body"
    return InvalidRequest(field, found["input"], limit_of(found["type"], found["msg"], found.get("ctx", {})))


ACCEPTED = {
    "missing": "must be given",
    "extra_forbidden": "is not a field of this request",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "bytes_type": "must be base64 text",
    "string_pattern_mismatch": "must match {pattern}",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
"""Pydantic's kinds of error, and what is allowed."""


def limit_of(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """Pydantic's error as what would be accepted: "must be ..."."""
    if kind in ACCEPTED:
        return ACCEPTED[kind].format(**context)
    return message.removeprefix("Value error, ").replace("Input should", "must")
