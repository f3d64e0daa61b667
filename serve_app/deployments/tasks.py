"""The named requests that a replica is drawing: who owns them, how far they are, and how to stop them."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from serve_app.engine.request import Delivery, GeneratedImage, Progress


@dataclass
class Task:
    """One name; images of one request share it."""

    futures: list[Future[GeneratedImage]] = field(default_factory=list)
    progress: Progress | None = None


class Tasks:
    """By name. A name that another owner uses at the same time is a task of its own."""

    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], Task] = {}

    @contextmanager
    def running(self, delivery: Delivery, future: Future[GeneratedImage]) -> Iterator[None]:
        """While inside, the image can be asked for and stopped by its task's name, if it has one."""
        if not delivery.task:
            yield
            return
        key = (delivery.owner, delivery.task)
        task = self._tasks.setdefault(key, Task())
        task.futures.append(future)
        try:
            yield
        finally:
            task.futures.remove(future)
            if not task.futures:
                self._tasks.pop(key, None)

    def note(self, delivery: Delivery, progress: Progress) -> None:
        """Remember how far it is; the latest preview stays."""
        task = self._tasks.get((delivery.owner, delivery.task))
        if task is not None:
            before = task.progress.preview if task.progress else None
            task.progress = progress if progress.preview else replace(progress, preview=before)

    def progress_of(self, name: str, owner: str) -> Progress | None:
        """None where there is no such task."""
        task = self._tasks.get((owner, name))
        return task.progress if task else None

    def cancel(self, name: str, owner: str) -> int:
        """Stop all images of the task; how many were stopped."""
        task = self._tasks.get((owner, name))
        return sum(future.cancel() for future in task.futures) if task else 0
