"""How long a step takes by the number of UNet rows, measured at warm-up; the batch cap follows from it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serve_app.engine.scheduler import Size

WORTHWHILE = 0.97

MOST_ROWS, FEW_ROWS = 32, 4
"""How wide to measure: to find the best width, and only to tell what a step costs."""


@dataclass(frozen=True)
class StepCurve:
    """Seconds a forward takes by UNet rows, at latent size `size`."""

    size: Size
    seconds: Mapping[int, float]

    @property
    def best_rows(self) -> int:
        """The fewest rows whose rate (rows a second) is within 3% of the best measured."""
        rates = {rows: rows / seconds for rows, seconds in self.seconds.items()}
        best = max(rates.values())
        return min(rows for rows, rate in rates.items() if rate >= WORTHWHILE * best)

    def seconds_of(self, size: Size, rows: int) -> float:
        """What a forward of `rows` at `size` takes: a line through the narrowest and the widest measured, by pixels."""
        fewest, most = min(self.seconds), max(self.seconds)
        native, pixels = self.size[0] * self.size[1], size[0] * size[1]
        slope = max(0.0, self.seconds[most] - self.seconds[fewest]) / max(1, most - fewest)
        return max(0.0, self.seconds[fewest] - slope * fewest) + slope * rows * pixels / native

    def cap(self, size: Size) -> int:
        """UNet rows worth batching at `size`: as many pixels as the best batch has at the measured size, at least 2."""
        pixels = self.size[0] * self.size[1] * self.best_rows
        return max(2, pixels // (size[0] * size[1]))


def measure(forward: Callable[[int], None], size: Size, most: int = MOST_ROWS, patience: int = 2) -> StepCurve:
    """Time `forward(rows)` for 1, 2, 4 .. `most` rows; stop once `patience` doublings in a row gain nothing.

    `forward` returns when the work is done, not when it is queued; where it raises MemoryError, that was too many rows.
    """
    seconds: dict[int, float] = {}
    rows, best, fruitless = 1, 0.0, 0
    while rows <= most and fruitless < patience:
        try:
            forward(rows)
        except MemoryError:
            if rows == 1:
                raise
            break
        seconds[rows] = min(_timed(forward, rows) for _ in range(2))
        rate = rows / seconds[rows]
        fruitless = 0 if rate > 1.03 * best else fruitless + 1
        best = max(best, rate)
        rows *= 2
    return StepCurve(size, seconds)


def _timed(forward: Callable[[int], None], rows: int) -> float:
    start = time.perf_counter()
    forward(rows)
    return time.perf_counter() - start
