"""What a caller holds while an image is made, and the boundary at which a failure becomes that caller's alone."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

from serve_app.errors import DarkroomError, GenerationFailed
from serve_app.requests.events import GeneratedImage

log = logging.getLogger("darkroom.engine")


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
        self._lock = threading.Lock()
        self._preview_requested = False

    def interrupt(self) -> bool:
        """Make the next step the last: the image is the model's current estimate. False if the future is done."""
        self._interrupted = True
        return not self.done()

    def request_preview(self) -> None:
        """Ask for one preview, of the next step. From any thread."""
        self._preview_requested = True

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


class WorkItem(Protocol):
    """Something the engine's threads work on."""

    def fail(self, error: DarkroomError) -> None:
        """Give it up."""
        ...


ItemT = TypeVar("ItemT", bound=WorkItem)


def run_guarded(phase: str, work: Callable[[Sequence[ItemT]], None], items: Sequence[ItemT]) -> None:
    """Do `work` on all `items`; if it raises, do it on each item alone and fail those items that still raise.

    This is the boundary of every thread of the engine, and the only broad `except` of the project: one request's error
    ends neither a thread nor another request. An unexpected error becomes a GenerationFailed that names the `phase`.
    """
    try:
        work(items)
    except Exception as error:
        if len(items) == 1:
            log.warning("%s failed", phase, exc_info=error)
            failure = GenerationFailed(f"{phase} failed: {type(error).__name__}: {error}")
            items[0].fail(error if isinstance(error, DarkroomError) else failure)
            return
    else:
        return
    for item in items:
        run_guarded(phase, work, [item])
