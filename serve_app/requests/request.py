"""What goes into the engine. No torch: requests cross process boundaries."""

from dataclasses import dataclass
from typing import Literal

ImageFormat = Literal["png", "jpeg", "webp"]
MEDIA_TYPES: dict[ImageFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
PromptSyntax = Literal["a1111", "plain"]
Upscaler = Literal["lanczos", "latent"]


@dataclass(frozen=True)
class OutputSpec:
    """The file to make: its size in pixels (resized with Lanczos if drawn at another), its format and metadata.

    `quality` is JPEG's and WebP's, 1 to 100. `ai_mark` writes IPTC's "made by a trained algorithm" into the XMP.
    """

    width: int
    height: int
    format: ImageFormat = "png"
    quality: int = 95
    infotext: str = ""
    ai_mark: bool = True


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: on where `scale` is over 1, over the fractions `start` to `end` of the model calls.

    `rescale` is the share of guidance rescale, 0..1.
    """

    scale: float
    rescale: float = 0.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class Raster:
    """Decoded pixels, row by row: RGB, or one byte each (`L`) for a mask."""

    width: int
    height: int
    mode: Literal["RGB", "L"]
    content: bytes


@dataclass(frozen=True)
class InitImage:
    """Where denoising starts from: a picture of the drawn size, kept where `mask` is 0 and repainted where it is 255.

    The first `1 - strength` of the steps are left out.
    """

    picture: Raster
    strength: float
    mask: Raster | None = None


@dataclass(frozen=True)
class Variation:
    """The initial noise is this far (0..1) on the way to that of another seed."""

    seed: int
    strength: float


@dataclass(frozen=True)
class Hires:
    """A second pass: the picture enlarged to `width` x `height`, then image to image with `strength`."""

    width: int
    height: int
    strength: float
    num_inference_steps: int
    upscaler: Upscaler = "lanczos"


@dataclass(frozen=True)
class LoraChoice:
    """A configured LoRA and how strongly it acts."""

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class GenerationRequest:
    """One image, fully decided: nothing is left to the model's defaults, the seed is drawn. Sizes as denoised.

    `init`, `variation` and `hires` are None where the image has none of it. `clip_skip` counts the text encoder's last
    layers that are left out.
    """

    model: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance: Guidance
    sampler: str
    schedule: str
    seed: int
    output: OutputSpec
    prompt_syntax: PromptSyntax = "plain"
    clip_skip: int = 0
    loras: tuple[LoraChoice, ...] = ()
    init: InitImage | None = None
    variation: Variation | None = None
    hires: Hires | None = None

    @property
    def skipped_steps(self) -> int:
        """The steps an initial image spares: counted as diffusers' image-to-image pipelines do."""
        if self.init is None:
            return 0
        return self.num_inference_steps - kept_steps(self.num_inference_steps, self.init.strength)


def kept_steps(num_inference_steps: int, strength: float) -> int:
    """The steps that `strength` leaves."""
    return min(int(num_inference_steps * strength), num_inference_steps)


@dataclass(frozen=True)
class CallerContext:
    """What the caller wants to hear, and who that is. None of it changes the picture.

    `task` names the request for progress and cancellation, `owner` is who may ask for either. `previews` are so many
    intermediate pictures, evenly spaced. A higher `priority` takes the next step first. Where there is a `traceparent`
    (W3C's), each step's time is kept.
    """

    task: str = ""
    owner: str = ""
    priority: int = 0
    progress: bool = False
    previews: int = 0
    traceparent: str = ""
