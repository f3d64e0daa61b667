"""`EngineThreads`: the engine's threads, and what follows when one of them ends."""

import sys
import threading
from collections.abc import Callable

from serve_app.engine.open_images import OpenImages
from serve_app.errors import DeviceLost, NotReady

LOST_JOIN_SECONDS = 5.0
"""A thread may be stuck in a device that is lost; it is then left to the end of the process."""


class EngineThreads:
    """When a thread dies of an error, which then belongs to no request, all open images end as DeviceLost.

    Whatever the error was: the engine draws nothing any more, and the images can go on in another one.

    Args:
        open_images: those.
    """

    def __init__(self, open_images: OpenImages) -> None:
        self._open = open_images
        self._threads: list[threading.Thread] = []
        self.ended = ""

    def start(self, name: str, run: Callable[[], None]) -> None:
        """Run it in a thread of this name."""
        thread = threading.Thread(target=self._run, args=(name, run), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait until they have ended."""
        for thread in self._threads:
            thread.join(LOST_JOIN_SECONDS if isinstance(self._open.refusal, DeviceLost) else None)

    def check(self) -> None:
        """Raise DeviceLost where the engine was lost, NotReady where a thread has ended. `ended` is its name."""
        if isinstance(self._open.refusal, DeviceLost):
            raise DeviceLost(str(self._open.refusal))
        if self.ended:
            raise NotReady(f"the engine's {self.ended} thread has ended")

    def _run(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except DeviceLost as error:
            self._open.end(error)
        finally:
            error = sys.exception()
            self.ended = self.ended or name
            reason = f"the engine's {name} thread has ended"
            self._open.end(NotReady(reason) if error is None else DeviceLost(f"{reason}: {error}"))
