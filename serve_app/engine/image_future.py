"""What a caller holds while an image is made."""

import threading
from concurrent.futures import Future

from serve_app.errors import DarkroomError, GenerationFailed
from serve_app.requests.events import GeneratedImage


class ImageFuture(Future[GeneratedImage]):
    """An image to come.

    `cancel()` frees its rows before the next step, and there is no image. `interrupt()` makes the next step the last.
    `request_preview()` has the next step rendered. `calls_left` are the model calls that it still takes, in all passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls_left = 0
        self._interrupted = False
        self._settled = False
        self._lock = threading.RLock()  # a Claim may settle from wherever garbage is collected
        self._preview_requested = False

    def interrupt(self) -> bool:
        """Make the next step the last: the image is the model's current estimate. False if the future is done."""
        self._interrupted = True
        return not self.done()

    def request_preview(self) -> None:
        """Ask for one preview, of the next step. From any thread."""
        self._preview_requested = True

    @property
    def is_preview_requested(self) -> bool:
        """Whether `request_preview` was called and no step has answered it."""
        return self._preview_requested

    def take_preview_request(self) -> bool:
        """Whether `request_preview` was called since the last call of this."""
        requested, self._preview_requested = self._preview_requested, False
        return requested

    @property
    def is_interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted

    def settle(self, outcome: GeneratedImage | DarkroomError) -> None:
        """Complete the future. From any thread; only the first call counts, and none after `cancel`."""
        with self._lock:
            late, self._settled = self._settled, True
        if late or not self.set_running_or_notify_cancel():
            return
        if isinstance(outcome, DarkroomError):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)


class Claim:
    """Whatever in the engine works on an image holds its claim. When nothing does any more, the future is settled.

    So no mistake can leave a caller waiting: an image that was dropped on its way fails.
    """

    def __init__(self, future: ImageFuture) -> None:
        self._future = future

    def __del__(self) -> None:
        self._future.settle(GenerationFailed("the engine has dropped the image"))
