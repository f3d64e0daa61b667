"""A gauge that keeps its value: Ray forgets one that is not set for some 20 s."""

import threading
import time
from functools import cache
from weakref import WeakSet

from ray.serve.metrics import Gauge

AGAIN_SECONDS = 5.0


class HeldGauge:
    """A gauge without labels of its own. Its value is told again every few seconds.

    Args:
        name: the metric's name.
        description: what it is.
    """

    def __init__(self, name: str, description: str) -> None:
        self._gauge = Gauge(name, description)
        self._value: float | None = None
        GAUGES.add(self)
        start_thread()

    def set(self, value: float) -> None:
        """The value from now on."""
        self._value = value
        self.set_again()

    def set_again(self) -> None:
        """Tell Ray the value, if there is one."""
        if self._value is not None:
            self._gauge.set(self._value)


GAUGES: "WeakSet[HeldGauge]" = WeakSet()


@cache
def start_thread() -> None:
    """Start the one thread of this process. Only the first call does."""
    threading.Thread(target=set_all_again, name="held gauges", daemon=True).start()


def set_all_again() -> None:
    """Runs for ever."""
    while True:
        time.sleep(AGAIN_SECONDS)
        for gauge in list(GAUGES):
            gauge.set_again()
