"""A gauge that keeps its value: Ray forgets one that is not set for some 20 s."""

import threading
import time
from weakref import ReferenceType, ref

from ray.serve.metrics import Gauge

AGAIN_SECONDS = 5.0


class HeldGauge:
    """A gauge without labels of its own. A thread tells its value again every few seconds, as long as it is used.

    Args:
        name: the metric's name.
        description: what it is.
    """

    def __init__(self, name: str, description: str) -> None:
        self._gauge = Gauge(name, description)
        self._value: float | None = None
        threading.Thread(target=tell_again, args=(ref(self),), name=f"gauge {name}", daemon=True).start()

    def set(self, value: float) -> None:
        """The value from now on."""
        self._value = value
        self.set_again()

    def set_again(self) -> None:
        """Tell Ray the value, if there is one."""
        if self._value is not None:
            self._gauge.set(self._value)


def tell_again(reference: "ReferenceType[HeldGauge]") -> None:
    """Runs until the gauge is gone."""
    while (gauge := reference()) is not None:
        gauge.set_again()
        del gauge
        time.sleep(AGAIN_SECONDS)
