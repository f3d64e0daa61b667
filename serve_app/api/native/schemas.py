"""The body of our own routes: every field a request may have, and its way to a `GenerationParams`."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.names import read_names
from serve_app.errors import UnknownName
from serve_app.requests.input_images import ResizeMode, read_base64
from serve_app.requests.params import GenerationParams, HiresParams
from serve_app.requests.request import MEDIA_TYPES, ImageFormat, LoraChoice, PromptSyntax, Upscaler

Number = Annotated[float, Field(allow_inf_nan=False)]


class Body(BaseModel):
    """Unknown fields and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LoraBody(Body):
    """One of the model's LoRAs."""

    name: Annotated[str, Field(description="One that the model is configured with.")]
    weight: Annotated[Number, Field(description="How strongly it acts.")] = 1.0


class HiresBody(Body):
    """A second pass over the enlarged picture."""

    scale: Annotated[Number, Field(description="Times the size, where no side is given.")] = 2.0
    width: Annotated[int | None, Field(description="Pixels.")] = None
    height: Annotated[int | None, Field(description="Pixels.")] = None
    strength: Annotated[Number, Field(description="How much is drawn anew, 0 to 1.")] = 0.7
    num_inference_steps: Annotated[int | None, Field(description="By default the first pass's.")] = None
    upscaler: Annotated[Upscaler, Field(description="Of the picture (lanczos), or of its latents.")] = "lanczos"


class Txt2ImgBody(Body):
    """One image. What is left out comes from the model's configuration."""

    prompt: Annotated[
        str, Field(description="What to draw; may be empty with an image.", examples=["red apple on a blue background"])
    ] = ""
    negative_prompt: Annotated[str | None, Field(description="What to keep out; needs guidance over 1.")] = None
    num_inference_steps: Annotated[int | None, Field(description="Denoising steps.")] = None
    width: Annotated[int | None, Field(description="Pixels.")] = None
    height: Annotated[int | None, Field(description="Pixels.")] = None
    guidance_scale: Annotated[
        Number | None, Field(description="How closely to follow the prompt; 1 and less is off.")
    ] = None
    guidance_rescale: Annotated[Number, Field(description="Share of guidance rescale, 0 to 1.")] = 0.0
    guidance_start: Annotated[Number, Field(description="Guide from this fraction of the run on.")] = 0.0
    guidance_end: Annotated[Number, Field(description="Guide up to this fraction of the run.")] = 1.0
    model: Annotated[str | None, Field(description="One of the configured models.")] = None
    sampler: Annotated[str | None, Field(description="Such as euler, ddim, dpmpp_2m.")] = None
    scheduler: Annotated[str | None, Field(description="The noise schedule: automatic, linear, karras ...")] = None
    seed: Annotated[int | None, Field(description="The same request and seed give the same image.")] = None
    subseed: Annotated[int | None, Field(description="Another seed, to move the initial noise towards.")] = None
    subseed_strength: Annotated[Number, Field(description="How far, 0 to 1.")] = 0.0
    prompt_syntax: Annotated[
        PromptSyntax | None, Field(description="a1111 reads (word:1.2), [word], BREAK, <lora:name:0.8>; plain nothing.")
    ] = None
    clip_skip: Annotated[int | None, Field(description="Last layers of the text encoder to leave out.")] = None
    loras: Annotated[list[LoraBody], Field(description="The model's LoRAs, mixed by weight.")] = []
    image: Annotated[str | None, Field(description="Base64 or data URL of a PNG, JPEG or WebP to start from.")] = None
    mask: Annotated[str | None, Field(description="As image, of its size: white is repainted, black kept.")] = None
    strength: Annotated[
        Number | None, Field(description="How much of the image is drawn anew, 0 to 1; by default 0.8, 1 with a mask.")
    ] = None
    resize_mode: Annotated[ResizeMode, Field(description="How the image is brought to another size.")] = "stretch"
    hires: Annotated[HiresBody | None, Field(description="A second pass at a larger size.")] = None
    output_format: Annotated[str, Field(description="png, jpeg or webp.")] = "png"
    quality: Annotated[int, Field(description="Of jpeg and webp, 1 to 100.")] = 95


def to_params(body: Txt2ImgBody) -> GenerationParams:
    """What the body asks for; raises UnknownName and InvalidRequest."""
    named = ("model", "sampler", "scheduler", "loras", "image", "mask", "hires", "output_format")
    same: dict[str, Any] = {name: getattr(body, name) for name in Txt2ImgBody.model_fields if name not in named}
    sampler, scheduler = read_names(body.sampler, body.scheduler)
    return GenerationParams(
        **same,
        sampler=sampler,
        scheduler=scheduler,
        loras=tuple(LoraChoice(lora.name, lora.weight) for lora in body.loras),
        image=None if body.image is None else read_base64("image", body.image),
        mask=None if body.mask is None else read_base64("mask", body.mask),
        hires=HiresParams(**body.hires.model_dump()) if body.hires else None,
        output_format=read_format(body.output_format),
    )


def read_format(text: str) -> ImageFormat:
    """`PNG`, `jpg` ... to a format the engine writes."""
    plain = text.lower().replace("jpg", "jpeg")
    for known in MEDIA_TYPES:
        if plain == known:
            return known
    raise UnknownName("output_format", text, f"must be one of {', '.join(MEDIA_TYPES)}")
