"""How many seconds a step takes by its UNet rows. How many rows to batch, and what a request costs, follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass

Size = tuple[int, int]
"""Latent height and width."""

NEAR_BEST = 0.97


@dataclass(frozen=True, kw_only=True)
class StepCurve:
    """Seconds of a forward by its UNet rows, measured at latent size `size`. `max_rows` is the configured cap."""

    size: Size
    seconds: Mapping[int, float]
    max_rows: int | None = None

    @property
    def best_rows(self) -> int:
        """The fewest rows whose rate (rows per second) is within 3% of the best measured rate."""
        rates = {rows: rows / seconds for rows, seconds in self.seconds.items()}
        best = max(rates.values())
        return min(rows for rows, rate in rates.items() if rate >= NEAR_BEST * best)

    def seconds_of(self, size: Size, rows: int) -> float:
        """Seconds of a forward of `rows` at `size`: a line through the fewest and most rows measured, by pixels."""
        fewest, most = min(self.seconds), max(self.seconds)
        native, pixels = self.size[0] * self.size[1], size[0] * size[1]
        slope = max(0.0, self.seconds[most] - self.seconds[fewest]) / max(1, most - fewest)
        return max(0.0, self.seconds[fewest] - slope * fewest) + slope * rows * pixels / native

    def cap(self, size: Size) -> int:
        """UNet rows worth batching at `size`: as many pixels as the best batch at the measured size, at least 2 rows.

        `max_rows` goes before that.
        """
        if self.max_rows is not None:
            return self.max_rows
        pixels = self.size[0] * self.size[1] * self.best_rows
        return max(2, pixels // (size[0] * size[1]))
