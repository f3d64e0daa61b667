"""Which rows take the next step. No tensors: a policy is small, pure and replaceable."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Size = tuple[int, int]
"""Latent height and width: all that one forward needs equal."""

PATIENCE = (3.0, 5.0, 8.0, 13.0)
"""How many times its time alone a request may take, where that can still be kept."""


class Row(Protocol):
    """An image in flight, as far as scheduling goes."""

    @property
    def size(self) -> Size:
        """Latent height and width."""
        ...

    @property
    def model_rows(self) -> int:
        """UNet rows a step takes: two where guided."""
        ...

    @property
    def priority(self) -> int:
        """Higher takes the next step first."""
        ...

    @property
    def arrived(self) -> float:
        """When the request came, in seconds."""
        ...

    @property
    def calls(self) -> int:
        """Model calls it takes from first to last."""
        ...

    @property
    def calls_left(self) -> int:
        """Those still to do."""
        ...


RowT = TypeVar("RowT", bound=Row)


@dataclass(frozen=True)
class StepPlan(Generic[RowT]):
    """The next step: `rows`, at least one, all of one size, within the cap unless a single row exceeds it."""

    rows: tuple[RowT, ...]


class Scheduler(Protocol[RowT]):
    """The policy: keeps the images in flight and picks the next step's."""

    def add(self, row: RowT) -> None:
        """An image joins."""
        ...

    def discard(self, row: RowT) -> None:
        """An image leaves: finished, cancelled or failed."""
        ...

    def plan(self) -> StepPlan[RowT] | None:
        """The next step, None where nothing is in flight."""
        ...


class DeadlineOrder(Generic[RowT]):
    """Earliest deadline first; rows of the most urgent one's size fill the batch, in the same order.

    A row's deadline is its pending and so many times what it would take alone: the first of `PATIENCE` that it can
    still meet. So a late one gives way to those that can be in time, but not for ever: the last deadline stays, and in
    time nothing is earlier. Higher priorities go before all that, and can starve lower ones.

    Args:
        cap: UNet rows worth putting into one forward of that size.
        seconds: what a forward of so many rows takes, by size; only its ratio to the time between pending matters.
        clock: the seconds that `arrived` counts in.
    """

    def __init__(
        self,
        cap: Callable[[Size], int],
        seconds: Callable[[Size, int], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cap = cap
        self._seconds = seconds
        self._clock = clock
        self._rows: dict[RowT, None] = {}

    def add(self, row: RowT) -> None:
        """See `Scheduler`."""
        self._rows[row] = None

    def discard(self, row: RowT) -> None:
        """See `Scheduler`."""
        self._rows.pop(row, None)

    def plan(self) -> StepPlan[RowT] | None:
        """See `Scheduler`."""
        if not self._rows:
            return None
        now = self._clock()
        ranked = sorted(self._rows, key=lambda row: (-row.priority, self._deadline(row, now)))
        size = ranked[0].size
        chosen: list[RowT] = []
        room = self._cap(size)
        for row in ranked:
            if row.size != size:
                continue
            if chosen and row.model_rows > room:
                break
            chosen.append(row)
            room -= row.model_rows
        return StepPlan(tuple(chosen))

    def _deadline(self, row: RowT, now: float) -> float:
        call = self._seconds(row.size, row.model_rows)
        earliest = now + call * row.calls_left
        deadlines = [row.arrived + factor * call * row.calls for factor in PATIENCE]
        return next((deadline for deadline in deadlines if earliest <= deadline), deadlines[-1])
