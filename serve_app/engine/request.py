"""What goes into the engine and what comes out. No torch: these cross process boundaries."""

from dataclasses import dataclass
from typing import Literal

ImageFormat = Literal["png", "jpeg", "webp"]
MEDIA_TYPES: dict[ImageFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True)
class OutputSpec:
    """The file to make: its size in pixels (resized with Lanczos if drawn at another), its format and infotext."""

    width: int
    height: int
    format: ImageFormat = "png"
    infotext: str = ""


@dataclass(frozen=True)
class GenerationRequest:
    """One image, fully decided: nothing optional is left open, the seed is drawn. `width`, `height`: as denoised."""

    model: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    schedule: str
    seed: int
    output: OutputSpec


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` model calls are done."""

    step: int
    steps: int


@dataclass(frozen=True)
class Timings:
    """Seconds in each phase: waiting for the first step, encoding prompts, denoising, decoding and compressing."""

    queue: float
    encode: float
    denoise: float
    decode: float


@dataclass(frozen=True)
class GeneratedImage:
    """The finished file."""

    content: bytes
    format: ImageFormat
    width: int
    height: int
    seed: int
    timings: Timings

    @property
    def media_type(self) -> str:
        """For the Content-Type header."""
        return MEDIA_TYPES[self.format]


Event = Progress | GeneratedImage
