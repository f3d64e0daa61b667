"""What the engine's threads hand each other, and the queues between them."""

from dataclasses import dataclass
from queue import SimpleQueue

import torch

from serve_app.engine.image_future import ImageFuture
from serve_app.engine.passes import Pass
from serve_app.engine.trajectory import Trajectory
from serve_app.errors import DarkroomError
from serve_app.requests.events import Progress


@dataclass(frozen=True, eq=False, kw_only=True)
class PreviewJob:
    """A preview to make: the model's estimate of the clean latents (c, h, w), and the progress it goes with."""

    pass_: Pass
    latents: torch.Tensor
    progress: Progress

    @property
    def future(self) -> ImageFuture:
        """The caller's."""
        return self.pass_.future

    @property
    def pixel_size(self) -> tuple[int, int]:
        """See `Pass`."""
        return self.pass_.pixel_size

    def fail(self, error: DarkroomError) -> None:
        """The image does not depend on its previews: tell the progress without one."""
        self.pass_.tell(self.progress)


Job = Pass | Trajectory | PreviewJob
"""What the VAE worker does: encode a pass's init image, decode a finished trajectory, make a preview."""

Jobs = SimpleQueue[Job | None]
"""To the VAE worker. None ends its thread."""

Inbox = SimpleQueue[Pass | None]
"""To the denoise loop: passes whose prompts are to be encoded. None ends its thread."""
