"""The named requests of a replica: who owns them, how far each image is, and how to stop them."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from serve_app.engine.image_future import ImageFuture
from serve_app.requests.events import Progress, Queued
from serve_app.requests.request import CallerContext

NOT_BEGUN = Queued(0, 0.0)
PREVIEW_SECONDS = 1.0


@dataclass
class TaskImage:
    """One image of a task."""

    future: ImageFuture
    progress: Queued | Progress = NOT_BEGUN
    preview_asked_at: float = float("-inf")


class Tasks:
    """Images by the name of their request. A name that two owners use means two tasks.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._images: dict[tuple[str, str], list[TaskImage]] = {}

    @contextmanager
    def running(self, context: CallerContext, future: ImageFuture) -> Iterator[None]:
        """While inside, the image can be found by its task's name."""
        key, image = (context.owner, context.task), TaskImage(future)
        images = self._images.setdefault(key, [])
        images.append(image)
        try:
            yield
        finally:
            images.remove(image)
            if not images:
                del self._images[key]

    def note(self, context: CallerContext, future: ImageFuture, progress: Progress) -> None:
        """Remember how far an image is. Its latest preview stays."""
        for image in self._find(context.task, context.owner):
            if image.future is future:
                # A preview takes a moment to decode: later steps may have been noted before it.
                before = image.progress if isinstance(image.progress, Progress) else progress
                latest = max(progress, before, key=fraction)
                image.progress = replace(latest, preview=progress.preview or before.preview)

    def progress_of(self, name: str, owner: str, preview: bool = False) -> Queued | Progress | None:
        """How far the least advanced image is, of those that have begun. None where there is no such task.

        With `preview`, this image's next step renders one, which a later call gets. Previews are rendered beside the
        images of all callers, so each image has one in `PREVIEW_SECONDS`, however often it is asked for.
        """
        images = self._find(name, owner)
        found = least_advanced(image.progress for image in images)
        shown = next((image for image in images if image.progress is found), None)
        if preview and shown is not None and self._clock() - shown.preview_asked_at >= PREVIEW_SECONDS:
            shown.preview_asked_at = self._clock()
            shown.future.request_preview()
        return found

    def cancel(self, name: str, owner: str) -> int:
        """Stop all images of the task. Returns how many were stopped."""
        return sum(image.future.cancel() for image in self._find(name, owner))

    def interrupt(self, name: str, owner: str) -> int:
        """Let all images of the task end with their next step. Returns how many that are."""
        return sum(image.future.interrupt() for image in self._find(name, owner))

    def _find(self, name: str, owner: str) -> list[TaskImage]:
        return self._images.get((owner, name), [])


def least_advanced(found: Iterable[Queued | Progress]) -> Queued | Progress | None:
    """How far a task of several images is: the least advanced of those that have begun, else the first that waits."""
    waiting: list[Queued] = []
    begun: list[Progress] = []
    for one in found:
        if isinstance(one, Progress):
            begun.append(one)
        else:
            waiting.append(one)
    return min(begun, key=fraction, default=None) or next(iter(waiting), None)


def fraction(progress: Progress) -> float:
    """The part of the model calls that is done."""
    return progress.step / progress.steps
