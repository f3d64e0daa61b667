"""A decided request for one image: what the engine draws. It crosses process boundaries, so it holds no tensors."""

from dataclasses import dataclass

from serve_app.requests.capabilities import Limits
from serve_app.requests.image_files import OutputSpec, Raster
from serve_app.requests.params import LoraWeight, SamplingParams, Upscaler


@dataclass(frozen=True)
class InitImage:
    """The image that denoising starts from, of the size that is denoised: kept where `mask` is 0, repainted at 255.

    The first `1 - strength` of the steps are skipped.
    """

    raster: Raster
    strength: float
    mask: Raster | None = None


@dataclass(frozen=True)
class Variation:
    """Moves the initial noise by `strength` (0 to 1) towards the noise of another seed."""

    seed: int
    strength: float


@dataclass(frozen=True)
class Hires:
    """A second pass: the image enlarged to `width` x `height` pixels, then image to image with `strength`."""

    width: int
    height: int
    strength: float
    num_inference_steps: int
    upscaler: Upscaler = "lanczos"


@dataclass(frozen=True)
class GenerationRequest:
    """One image, fully decided: no default is left open, and the seed is drawn.

    `width` and `height` are the size that is denoised, in pixels; `output` has the file's. `init`, `variation` and
    `hires` are None where the request has none. `max_prompt_chunks` is the model's limit: only its tokenizer can tell
    how many chunks a prompt has.
    """

    model: str
    prompt: str
    sampling: SamplingParams
    width: int
    height: int
    seed: int
    output: OutputSpec
    max_prompt_chunks: int = Limits().max_prompt_chunks
    loras: tuple[LoraWeight, ...] = ()
    init: InitImage | None = None
    variation: Variation | None = None
    hires: Hires | None = None

    @property
    def skipped_steps(self) -> int:
        """How many steps an initial image skips, as in diffusers' image-to-image pipelines."""
        if self.init is None:
            return 0
        steps = self.sampling.num_inference_steps
        return steps - kept_steps(steps, self.init.strength)


def kept_steps(num_inference_steps: int, strength: float) -> int:
    """The number of steps that `strength` leaves."""
    return min(int(num_inference_steps * strength), num_inference_steps)


@dataclass(frozen=True)
class CallerContext:
    """Who asks, and what they want to be told. None of it changes the image.

    `task` names the request for progress and cancellation; only `owner` may ask for either. `previews` is the number of
    intermediate images, evenly spaced. `is_batch` requests give way to others. The image should be done within
    `deadline_s` seconds; None leaves that to the model's settings. With `counts_device_time` the
    device's seconds are summed for the owner. With a `traceparent` (W3C Trace Context) each step's time is kept.
    Requests with the same `idempotency_key` are one request, sent again: see `requests/idempotency.py`.
    """

    task: str = ""
    owner: str = ""
    is_batch: bool = False
    deadline_s: float | None = None
    progress: bool = False
    previews: int = 0
    counts_device_time: bool = False
    traceparent: str = ""
    idempotency_key: str = ""
