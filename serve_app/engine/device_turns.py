"""`DeviceTurns`: the engine's threads share the device, until one of them needs all of its memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class DeviceTurns:
    """Work that shares the device waits for work that wants it alone, so that the latter goes next."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._wanted_alone = 0
        self._taken = False

    @contextmanager
    def share(self) -> Iterator[None]:
        """While inside, only other work that shares runs. Not inside itself."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted_alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While inside, no other work runs."""
        with self._changed:
            self._wanted_alone += 1
            self._changed.wait_for(lambda: not self._sharing and not self._taken)
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._wanted_alone -= 1
                self._changed.notify_all()
