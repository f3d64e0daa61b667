"""What a caller asked for, as far as it was said; every API and the library fill in the same form."""

from dataclasses import dataclass, field

from serve_app.requests.input_images import ResizeMode
from serve_app.requests.request import ImageFormat, LoraChoice, PromptSyntax, Upscaler


@dataclass(frozen=True)
class HiresParams:
    """A second pass at `scale` times the size, or at `width` x `height`; the steps are the first pass's by default."""

    scale: float = 2.0
    width: int | None = None
    height: int | None = None
    strength: float = 0.7
    num_inference_steps: int | None = None
    upscaler: Upscaler = "lanczos"


@dataclass(frozen=True)
class GenerationParams:
    """None is "as the model's config says". `image` and `mask` are files: PNG, JPEG or WebP.

    `strength` is by default 0.8 for an image, 1 for an image with a mask. With an image, `prompt` may be empty, and the
    size is the image's where neither side is given.
    """

    prompt: str = ""
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    sampler: str | None = None
    scheduler: str | None = None
    seed: int | None = None
    subseed: int | None = None
    subseed_strength: float = 0.0
    num_images: int = 1
    prompt_syntax: PromptSyntax | None = None
    clip_skip: int | None = None
    loras: tuple[LoraChoice, ...] = ()
    image: bytes | None = field(default=None, repr=False)
    mask: bytes | None = field(default=None, repr=False)
    strength: float | None = None
    resize_mode: ResizeMode = "stretch"
    hires: HiresParams | None = None
    output_format: ImageFormat = "png"
    quality: int = 95
