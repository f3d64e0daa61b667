"""The named requests that a replica is future: who owns them, how far they are, and how to stop them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from serve_app.engine.image_future import ImageFuture
from serve_app.requests.events import Progress, Queued
from serve_app.requests.request import CallerContext

NOT_BEGUN = Queued(0, 0.0)


@dataclass
class Task:
    """One name; images of one request share it."""

    futures: list[ImageFuture] = field(default_factory=list)
    progress: Queued | Progress = NOT_BEGUN


class Tasks:
    """By name. A name that another owner uses at the same time is a task of its own."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], Task] = {}

    @contextmanager
    def running(self, context: CallerContext, future: ImageFuture) -> Iterator[None]:
        """While inside, the image can be asked for and stopped by its task's name, if it has one."""
        if not context.task:
            yield
            return
        key = (context.owner, context.task)
        task = self._tasks.setdefault(key, Task())
        task.futures.append(future)
        try:
            yield
        finally:
            task.futures.remove(future)
            if not task.futures:
                self._tasks.pop(key, None)

    def note(self, context: CallerContext, progress: Progress) -> None:
        """Remember how far it is; the latest preview stays."""
        task = self._tasks.get((context.owner, context.task))
        if task is not None:
            before = task.progress.preview if isinstance(task.progress, Progress) else None
            task.progress = progress if progress.preview else replace(progress, preview=before)

    def progress_of(self, name: str, owner: str) -> Queued | Progress | None:
        """Queued before its first step; None where there is no such task."""
        task = self._tasks.get((owner, name))
        return task.progress if task else None

    def cancel(self, name: str, owner: str) -> int:
        """Stop all images of the task; how many were stopped."""
        return sum(future.cancel() for future in self._drawings_of(name, owner))

    def interrupt(self, name: str, owner: str) -> int:
        """Let all images of the task end with their next step; how many that are."""
        return sum(future.interrupt() for future in self._drawings_of(name, owner))

    def _drawings_of(self, name: str, owner: str) -> list[ImageFuture]:
        task = self._tasks.get((owner, name))
        return task.futures if task else []
