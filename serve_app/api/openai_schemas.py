"""What the OpenAI Images API takes and gives."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[str, Field(pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$", description="auto or WIDTHxHEIGHT, pixels.")]


class OpenAIBody(BaseModel):
    """Fields of all image routes; those after `user` are extras that self-hosted servers share."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=10)] = 1
    size: Size = "auto"
    quality: Literal["standard", "hd", "low", "medium", "high", "xhigh", "max", "auto"] = "auto"
    background: Literal["opaque", "auto"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] = 100
    response_format: Literal["url", "b64_json"] = "b64_json"
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    user: str | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: Annotated[float | None, Field(allow_inf_nan=False)] = None
    seed: int | None = None


class GenerationsBody(OpenAIBody):
    """`POST /v1/images/generations`."""

    prompt: Annotated[str, Field(description="What to draw.")]
    style: Literal["vivid", "natural"] | None = None
    moderation: Literal["low", "auto"] = "auto"


class EditsBody(OpenAIBody):
    """The form of `POST /v1/images/edits`, besides its files."""

    prompt: str
    input_fidelity: Literal["low", "high"] | None = None
    strength: Annotated[float | None, Field(allow_inf_nan=False)] = None


class ImageItem(BaseModel):
    """One image, as data or as a link."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


class InputTokens(BaseModel):
    """Tokens of what was sent."""

    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    """Text counts a token for four characters, pictures one for 16 x 16 pixels."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    total_tokens: int


class ImagesResponse(BaseModel):
    """All images of a request."""

    created: int
    data: list[ImageItem]
    background: str
    output_format: str
    quality: str
    size: str
    usage: Usage


class ModelItem(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "darkroom"


class ModelList(BaseModel):
    """Every model."""

    object: Literal["list"] = "list"
    data: list[ModelItem]


def count_usage(prompt: str, pictures_in: int, pixels: int, images: int) -> Usage:
    """What a request of `images` images of so many pixels counts."""
    patches = -(-pixels // 256)
    text, sent = -(-len(prompt) // 4), pictures_in * patches
    return Usage(
        input_tokens=text + sent,
        input_tokens_details=InputTokens(image_tokens=sent, text_tokens=text),
        output_tokens=images * patches,
        total_tokens=text + sent + images * patches,
    )
