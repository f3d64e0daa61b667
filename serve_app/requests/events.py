"""What the engine reports of a request. Events cross process boundaries, so they hold no tensors."""

from dataclasses import dataclass

from serve_app.requests.image_files import MEDIA_TYPES, ImageFormat
from serve_app.requests.step_curve import StepCurve


@dataclass(frozen=True)
class Queued:
    """The request is accepted: `position` images start before it, in about `estimated_start_s` seconds."""

    position: int
    estimated_start_s: float


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` model calls are done. The rest takes about `eta_s` seconds.

    `preview` is an intermediate image, a file in the request's format and size; None where this step has none.
    """

    step: int
    steps: int
    eta_s: float = 0.0
    preview: bytes | None = None


@dataclass(frozen=True)
class ResumePoint:
    """Where a pass stands: its sampler state after `step_index` model calls and `draws` draws of noise.

    With it, another engine continues the request. `state` holds float32 values of `shape` (slots, c, h, w), row by row.
    """

    pass_index: int
    step_index: int
    draws: int
    shape: tuple[int, ...]
    state: bytes


@dataclass(frozen=True)
class StepTime:
    """A denoising step: when it began (monotonic clock), its seconds, its UNet rows, and the number of their images."""

    began: float
    seconds: float
    rows: int
    images: int


@dataclass(frozen=True)
class Timings:
    """Seconds in each phase: waiting for the first step, encoding prompts, denoising, decoding and compressing.

    `device` is the image's share of the denoiser's time: each step's seconds, divided by rows. `steps` are kept for
    traced requests.
    """

    queue: float = 0.0
    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    device: float = 0.0
    steps: tuple[StepTime, ...] = ()

    @property
    def phases(self) -> dict[str, float]:
        """The seconds of each phase, by name."""
        names = ("queue", "encode", "denoise", "decode", "device")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> float:
        """Seconds from submission to file."""
        return self.queue + self.encode + self.denoise + self.decode


@dataclass(frozen=True)
class GeneratedImage:
    """A finished file. `flagged` is the safety checker's verdict; None without a check."""

    content: bytes
    format: ImageFormat
    width: int
    height: int
    seed: int
    timings: Timings
    flagged: bool | None = None

    @property
    def media_type(self) -> str:
        """The value of the Content-Type header."""
        return MEDIA_TYPES[self.format]


@dataclass(frozen=True)
class MemoryUse:
    """Memory of one process and of its machine and GPU, in bytes.

    `host` and `gpu` name the machine and the GPU, since processes share them. `gpu` is empty without a GPU. `ram_used`
    and `gpu_reserved` are the process's own; `gpu_used` counts all processes on the GPU.
    """

    host: str
    ram_used: int
    ram_total: int
    gpu: str = ""
    gpu_used: int = 0
    gpu_total: int = 0
    gpu_reserved: int = 0


@dataclass(frozen=True, kw_only=True)
class ReplicaLoad:
    """What one replica has to do, told to each ingress with every heartbeat.

    `images` are in flight here, of all callers; `batches` is the number of full batches that they make. `work_s` is the
    device time that they still take, in seconds. `step_age_s` is how long the running step has run, 0 where none runs;
    at `step_limit_s` it counts as hung. `curve` is what a step takes, `slowdown` how many times as long as the curve
    recent steps took. Of the other ingress replicas, requests wait at `others_waiting`: `others_queued_s` seconds of
    device time.
    """

    images: int = 0
    batches: float = 0.0
    others_waiting: int = 0
    others_queued_s: float = 0.0
    work_s: float = 0.0
    step_age_s: float = 0.0
    step_limit_s: float = 10.0
    curve: StepCurve
    slowdown: float = 1.0


Event = Queued | Progress | GeneratedImage
"""The events that callers receive."""

ReplicaEvent = Event | ResumePoint
"""The events of a replica. Resume points are for the ingress, which may ask another replica to continue."""
