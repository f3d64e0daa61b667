"""What a caller holds while an image is drawn."""

from concurrent.futures import Future

from serve_app.requests.events import GeneratedImage


class ImageFuture(Future[GeneratedImage]):
    """An image to come.

    `cancel()` frees its rows before the next step and there is no image; `interrupt()` lets it end with the next step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cut_short = False

    def interrupt(self) -> bool:
        """Let the next step be its last: the image is what the model takes the picture to be by then. False if done."""
        self._cut_short = True
        return not self.done()

    @property
    def is_interrupted(self) -> bool:
        """Whether somebody asked for that."""
        return self._cut_short
