"""What a model can do and what may be asked of it: the only thing that requests are resolved against."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.requests.params import SamplingParams
from serve_app.requests.samplers import SAMPLERS

Positive = Annotated[int, Field(gt=0)]


class Limits(BaseModel):
    """What one request may ask of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_side: Annotated[Positive, Field(description="The smallest width and height, pixels.")] = 64
    max_side: Annotated[Positive, Field(description="The largest width and height, pixels.")] = 2048
    max_pixels: Annotated[Positive, Field(description="The largest width x height of a file, pixels.")] = 1024 * 1024
    size_multiple: Annotated[Positive, Field(description="Width and height must be multiples of this, pixels.")] = 8
    max_num_inference_steps: Annotated[Positive, Field(description="The most denoising steps of a pass.")] = 150
    max_prompt_characters: Annotated[Positive, Field(description="The longest prompt, characters.")] = 2000
    max_prompt_chunks: Annotated[
        Positive, Field(description="The most chunks of either prompt: 75 tokens each, or what stands between BREAKs.")
    ] = 8
    min_guidance_scale: Annotated[float, Field(description="The smallest guidance scale.")] = 0.0
    max_guidance_scale: Annotated[float, Field(description="The largest guidance scale.")] = 30.0
    max_images: Annotated[Positive, Field(description="The most images of one request.")] = 8
    max_loras: Annotated[Positive, Field(description="The most LoRAs of one request.")] = 4
    max_lora_weight: Annotated[float, Field(gt=0, description="The largest absolute weight of a LoRA.")] = 4.0
    max_input_pixels: Annotated[Positive, Field(description="The largest image that may be sent, pixels.")] = (
        4096 * 4096
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_side > self.max_side:
            raise ValueError(f"min_side must be at most max_side ({self.max_side}), got {self.min_side}")
        if self.min_guidance_scale > self.max_guidance_scale:
            raise ValueError(
                f"min_guidance_scale must be at most max_guidance_scale ({self.max_guidance_scale}), "
                f"got {self.min_guidance_scale}"
            )
        return self


class ModelCapabilities(BaseModel):
    """A model as the ingress knows it. Its replicas publish what the checkpoint decides; the config adds the rest.

    `native_size` is the side, in pixels, of the square that the model generates best. `samplers` maps each sampler that
    the checkpoint can follow to its schedules. `tokens_per_chunk` is how many tokens of a prompt are encoded together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = ""
    source: str = ""
    native_size: Positive = 512
    vae_scale_factor: Positive = 8
    samplers: Mapping[str, tuple[str, ...]] = {name: sampler.allowed for name, sampler in SAMPLERS.items()}
    max_clip_skip: int = 11
    tokens_per_chunk: Positive = 75
    loras: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    defaults: SamplingParams = SamplingParams()
    limits: Limits = Limits()
    ai_mark: bool = True

    @cached_property
    def size_multiple(self) -> int:
        """Width and height of an image must be multiples of this, pixels."""
        return math.lcm(self.limits.size_multiple, self.vae_scale_factor)

    def with_settings(self, defaults: SamplingParams, limits: Limits, ai_mark: bool) -> Self:
        """With the operator's settings: those of `defaults` that are given replace the checkpoint's own."""
        merged = self.defaults.model_copy(update={name: getattr(defaults, name) for name in defaults.model_fields_set})
        return self.model_copy(update={"defaults": merged, "limits": limits, "ai_mark": ai_mark})
