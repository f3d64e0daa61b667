"""Bodies and responses of the OpenAI Images API."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class OpenAIBody(BaseModel):
    """Fields of all image routes. Those after `user` are not OpenAI's; other self-hosted servers have them too."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str | None, Field(description="A configured model or alias; by default the default model.")] = None
    n: Annotated[int, Field(ge=1, le=10, description="Number of images.")] = 1
    size: Annotated[
        str,
        Field(
            pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$",
            description="Size of the files: WIDTHxHEIGHT in pixels, or auto for the model's own size.",
        ),
    ] = "auto"
    quality: Annotated[
        Literal["standard", "hd", "low", "medium", "high", "xhigh", "max", "auto"],
        Field(description="Accepted without effect, and returned as sent."),
    ] = "auto"
    background: Annotated[Literal["opaque", "auto"], Field(description="Images are always opaque.")] = "auto"
    output_format: Annotated[Literal["png", "jpeg", "webp"], Field(description="File format.")] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100, description="Quality of jpeg and webp files.")] = 100
    response_format: Annotated[
        Literal["url", "b64_json"], Field(description="Return each image as a link or as base64 data.")
    ] = "b64_json"
    stream: Annotated[bool, Field(description="Answer with server-sent events.")] = False
    partial_images: Annotated[int, Field(ge=0, le=3, description="Number of previews per image in the stream.")] = 0
    user: Annotated[str | None, Field(description="Accepted without effect.")] = None
    negative_prompt: Annotated[str | None, Field(description="What the image must not show.")] = None
    num_inference_steps: Annotated[int | None, Field(description="Number of denoising steps.")] = None
    guidance_scale: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="How closely the image follows the prompt. Guidance is off up to 1."),
    ] = None
    seed: Annotated[int | None, Field(description="Seed of the first image; image i has seed + i.")] = None


class GenerationsBody(OpenAIBody):
    """The body of `POST /v1/images/generations`."""

    prompt: Annotated[str, Field(description="What the image shows.")]
    style: Annotated[Literal["vivid", "natural"] | None, Field(description="Accepted without effect.")] = None
    moderation: Annotated[
        Literal["low", "auto"], Field(description="Accepted without effect: the model's safety policy applies.")
    ] = "auto"


class EditsBody(OpenAIBody):
    """The text fields of `POST /v1/images/edits`."""

    prompt: Annotated[str, Field(description="What the image shows. Brackets have no meaning.")]
    input_fidelity: Annotated[
        Literal["low", "high"] | None, Field(description="Accepted without effect: use `strength`.")
    ] = None
    strength: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="How much of the image is changed, from 0 (nothing) to 1 (everything)."),
    ] = None


class ImageItem(BaseModel):
    """One image, as data or as a link."""

    b64_json: Annotated[str | None, Field(description="The file, base64.")] = None
    url: Annotated[str | None, Field(description="A signed link that expires.")] = None
    revised_prompt: Annotated[str | None, Field(description="Always null: prompts are not revised.")] = None


class InputTokens(BaseModel):
    """Tokens of the request."""

    image_tokens: Annotated[int, Field(description="One per 16 x 16 pixels.")]
    text_tokens: Annotated[int, Field(description="One per four characters.")]


class ImageUsage(BaseModel):
    """Tokens of request and response: one per four characters of text, one per 16 x 16 pixels of an image."""

    input_tokens: Annotated[int, Field(description="Tokens of the prompt and the images sent.")]
    input_tokens_details: Annotated[InputTokens, Field(description="The input tokens of each kind.")]
    output_tokens: Annotated[int, Field(description="Tokens of the generated images.")]
    total_tokens: Annotated[int, Field(description="Input and output tokens.")]


class ImageDescription(BaseModel):
    """What the response, and every event of a stream, says of its images."""

    size: Annotated[str, Field(description="Size of the files, WIDTHxHEIGHT in pixels.")]
    quality: Annotated[str, Field(description="As sent; `standard` and `hd` become `auto`.")]
    background: Annotated[str, Field(description="Always opaque.")] = "opaque"
    output_format: Annotated[str, Field(description="File format: png, jpeg or webp.")]


class ImagesResponse(ImageDescription):
    """All images of a request."""

    created: Annotated[int, Field(description="Unix time in seconds.")]
    data: Annotated[list[ImageItem], Field(description="The images, in the order of their seeds.")]
    usage: Annotated[ImageUsage, Field(description="Tokens of the request and its images.")]


class ModelItem(BaseModel):
    """One model."""

    id: Annotated[str, Field(description="The name to send as `model`.")]
    object: Annotated[Literal["model"], Field(description="Always model.")] = "model"
    created: Annotated[int, Field(description="Always 0.")] = 0
    owned_by: Annotated[str, Field(description="Always darkroom.")] = "darkroom"


class ModelList(BaseModel):
    """All models."""

    object: Annotated[Literal["list"], Field(description="Always list.")] = "list"
    data: Annotated[list[ModelItem], Field(description="The configured models, then their aliases.")]
