"""What goes into the engine and what comes out. No torch: these cross process boundaries."""

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
class Delivery:
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


@dataclass(frozen=True)
class Queued:
    """Accepted: so many images are to be started first, and that will take about so many seconds."""

    position: int
    estimated_start_s: float


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` model calls are done; the rest takes about `eta_s` seconds.

    `preview` is the picture as far as it is known, a file in the request's format and size, where this step has one.
    """

    step: int
    steps: int
    eta_s: float = 0.0
    preview: bytes | None = None


@dataclass(frozen=True)
class StepTime:
    """A denoising step: when it began (monotonic clock), seconds it took, its UNet rows, and of how many images."""

    began: float
    seconds: float
    rows: int
    images: int


@dataclass(frozen=True)
class Timings:
    """Seconds in each phase: waiting for the first step, encoding prompts, denoising, decoding and compressing.

    `device` is the image's share of the denoiser's time: each step's seconds by rows. `steps` are kept only where the
    request is traced.
    """

    queue: float = 0.0
    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    device: float = 0.0
    steps: tuple[StepTime, ...] = ()

    @property
    def phases(self) -> dict[str, float]:
        """Every figure by its name."""
        names = ("queue", "encode", "denoise", "decode", "device")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> float:
        """From submission to file."""
        return self.queue + self.encode + self.denoise + self.decode


@dataclass(frozen=True)
class GeneratedImage:
    """The finished file; `flagged` is the safety checker's verdict, None where none was asked."""

    content: bytes
    format: ImageFormat
    width: int
    height: int
    seed: int
    timings: Timings
    flagged: bool | None = None

    @property
    def media_type(self) -> str:
        """For the Content-Type header."""
        return MEDIA_TYPES[self.format]


@dataclass(frozen=True)
class MemoryUse:
    """Bytes. `host` and `gpu` tell machines and devices apart, since processes share them; without a GPU it is empty.

    `ram_used` and `gpu_reserved` are one process's, `gpu_used` everybody's on that device.
    """

    host: str
    ram_used: int
    ram_total: int
    gpu: str = ""
    gpu_used: int = 0
    gpu_total: int = 0
    gpu_reserved: int = 0


Event = Queued | Progress | GeneratedImage
