"""`DeviceTime`: how long the device has worked for each owner, whether their images were finished or not."""

import threading


class DeviceTime:
    """Sums of seconds by owner, until somebody takes them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    def add(self, owner: str, seconds: float) -> None:
        """Count an image's share of a step."""
        with self._lock:
            self._seconds[owner] = self._seconds.get(owner, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """What was counted since the last call."""
        with self._lock:
            taken, self._seconds = self._seconds, {}
        return taken
