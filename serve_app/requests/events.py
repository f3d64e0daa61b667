"""What comes out of the engine. No torch: events cross process boundaries."""

from dataclasses import dataclass

from serve_app.requests.image_files import MEDIA_TYPES, ImageFormat


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
class ResumePoint:
    """Enough to go on elsewhere: a pass's sampler state after `step_index` model calls and `draws` draws of noise.

    `state` is float32 of `shape` (slots, c, h, w), row by row. The rest follows from the request.
    """

    pass_index: int
    step_index: int
    draws: int
    shape: tuple[int, ...]
    state: bytes


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
"""What callers hear."""

ReplicaEvent = Event | ResumePoint
"""What a replica tells: a checkpoint is for whoever would ask another one to go on."""
