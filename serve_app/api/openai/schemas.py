"""What the OpenAI Images API takes and gives."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.error_responses import OpenAIProblemResponse

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIProblemResponse, "description": text}
    for status, text in {
        400: "a field is missing or out of its limit, or the picture was refused",
        401: "no valid key",
        404: "no such model",
        409: "stopped by its owner",
        413: "body over the limit",
        429: "the queue is full, or a limit of the key is reached",
        500: "this image could not be drawn",
        503: "warming up or draining",
    }.items()
}
Size = Annotated[str, Field(pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$", description="auto or WIDTHxHEIGHT, pixels.")]


class OpenAIBody(BaseModel):
    """Fields of all image routes; those after `user` are extras that self-hosted servers share."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str | None, Field(description="A configured model, or one of its other names.")] = None
    n: Annotated[int, Field(ge=1, le=10, description="How many images.")] = 1
    size: Annotated[Size, Field(description="WIDTHxHEIGHT of the files, pixels.")] = "auto"
    quality: Annotated[
        Literal["standard", "hd", "low", "medium", "high", "xhigh", "max", "auto"],
        Field(description="As asked; it changes nothing."),
    ] = "auto"
    background: Annotated[Literal["opaque", "auto"], Field(description="Always opaque.")] = "auto"
    output_format: Annotated[Literal["png", "jpeg", "webp"], Field(description="png, jpeg or webp.")] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100, description="Quality of jpeg and webp.")] = 100
    response_format: Annotated[Literal["url", "b64_json"], Field(description="Data in the answer, or links.")] = (
        "b64_json"
    )
    stream: Annotated[bool, Field(description="Answer with server-sent events.")] = False
    partial_images: Annotated[int, Field(ge=0, le=3, description="Previews in the stream, of each image.")] = 0
    user: Annotated[str | None, Field(description="Ignored.")] = None
    negative_prompt: Annotated[str | None, Field(description="What to keep out.")] = None
    num_inference_steps: Annotated[int | None, Field(description="Denoising steps.")] = None
    guidance_scale: Annotated[
        float | None, Field(allow_inf_nan=False, description="How closely to follow the prompt; 1 and less is off.")
    ] = None
    seed: Annotated[int | None, Field(description="Image i has seed + i.")] = None


class GenerationsBody(OpenAIBody):
    """`POST /v1/images/generations`."""

    prompt: Annotated[str, Field(description="What to draw.")]
    style: Annotated[Literal["vivid", "natural"] | None, Field(description="Ignored.")] = None
    moderation: Annotated[
        Literal["low", "auto"], Field(description="Ignored: the model's own safety policy holds.")
    ] = "auto"


class EditsBody(OpenAIBody):
    """The form of `POST /v1/images/edits`, besides its files."""

    prompt: Annotated[str, Field(description="What to draw; brackets are text.")]
    input_fidelity: Annotated[Literal["low", "high"] | None, Field(description="Ignored: strength says it.")] = None
    strength: Annotated[
        float | None, Field(allow_inf_nan=False, description="How much of the image is drawn anew, 0 to 1.")
    ] = None


class ImageItem(BaseModel):
    """One image, as data or as a link."""

    b64_json: Annotated[str | None, Field(description="The file, base64.")] = None
    url: Annotated[str | None, Field(description="A signed link that expires.")] = None
    revised_prompt: Annotated[str | None, Field(description="Always null: prompts are taken as they are.")] = None


class InputTokens(BaseModel):
    """Tokens of what was sent."""

    image_tokens: Annotated[int, Field(description="One for 16 x 16 pixels.")]
    text_tokens: Annotated[int, Field(description="One for four characters.")]


class ImageUsage(BaseModel):
    """Text counts a token for four characters, pictures one for 16 x 16 pixels."""

    input_tokens: Annotated[int, Field(description="Text and pictures sent.")]
    input_tokens_details: Annotated[InputTokens, Field(description="Each kind.")]
    output_tokens: Annotated[int, Field(description="One for 16 x 16 pixels drawn.")]
    total_tokens: Annotated[int, Field(description="Both ways.")]


class ImagesResponse(BaseModel):
    """All images of a request."""

    created: Annotated[int, Field(description="Unix seconds.")]
    data: Annotated[list[ImageItem], Field(description="All of them.")]
    background: Annotated[str, Field(description="Always opaque.")]
    output_format: Annotated[str, Field(description="png, jpeg or webp.")]
    quality: Annotated[str, Field(description="As asked; it changes nothing.")]
    size: Annotated[str, Field(description="WIDTHxHEIGHT of the files, pixels.")]
    usage: Annotated[ImageUsage, Field(description="What the request counts.")]


class ModelItem(BaseModel):
    """One model."""

    id: Annotated[str, Field(description="The name to ask for.")]
    object: Annotated[Literal["model"], Field(description="What this is.")] = "model"
    created: Annotated[int, Field(description="Unix seconds.")] = 0
    owned_by: Annotated[str, Field(description="Always darkroom.")] = "darkroom"


class ModelList(BaseModel):
    """Every model."""

    object: Annotated[Literal["list"], Field(description="What this is.")] = "list"
    data: Annotated[list[ModelItem], Field(description="All of them.")]


def count_usage(prompt: str, pictures_in: int, pixels: int, images: int) -> ImageUsage:
    """What a request of `images` images of so many pixels counts."""
    patches = -(-pixels // 256)
    text, sent = -(-len(prompt) // 4), pictures_in * patches
    return ImageUsage(
        input_tokens=text + sent,
        input_tokens_details=InputTokens(image_tokens=sent, text_tokens=text),
        output_tokens=images * patches,
        total_tokens=text + sent + images * patches,
    )
