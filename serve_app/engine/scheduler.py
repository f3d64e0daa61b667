"""Which rows take the next step. No tensors: a policy is small, pure and replaceable."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from serve_app.requests.step_curve import Size

PATIENCE = (3.0, 5.0, 8.0, 13.0)
"""A deadline allows an image this many times the seconds that it takes alone."""


BATCH_PATIENCE = 4.0


class Row(Protocol):
    """An image in flight, as far as scheduling goes."""

    @property
    def size(self) -> Size:
        """Latent height and width."""
        ...

    @property
    def group(self) -> Hashable:
        """Rows of one group may share a forward. Those of one group have one size."""
        ...

    @property
    def model_rows(self) -> int:
        """UNet rows that its next step takes: two where guided."""
        ...

    @property
    def is_batch(self) -> bool:
        """Whether it gives way to others: its deadlines are later."""
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


@dataclass(frozen=True, kw_only=True)
class StepPlan(Generic[RowT]):
    """The next step: at least one row, all of one group, within the cap unless a single row exceeds it."""

    rows: tuple[RowT, ...]


class Scheduler(Protocol[RowT]):
    """A policy: keeps the images in flight and picks the rows of the next step."""

    def add(self, row: RowT) -> None:
        """An image joins."""
        ...

    def discard(self, row: RowT) -> None:
        """An image leaves: finished, cancelled or failed."""
        ...

    def plan(self) -> StepPlan[RowT] | None:
        """The next step; None where nothing is in flight."""
        ...


class DeadlineOrder(Generic[RowT]):
    """Earliest deadline first. Rows of the most urgent row's group fill the batch, in the same order.

    A row's deadline is its arrival plus a multiple of the seconds it takes alone: the first multiple in `PATIENCE`
    that it can still meet. So a late row gives way to rows that can be on time. It does not give way for ever: the
    last deadline is never extended, so in time no other row's is earlier. Rows of the class `batch` are allowed
    `BATCH_PATIENCE` times as long.

    Args:
        cap: UNet rows worth batching in one forward of that size.
        seconds: what a forward of so many rows takes, by size.
        clock: the clock of `arrived`.
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
        ranked = sorted(self._rows, key=lambda row: self._deadline(row, now))
        group = ranked[0].group
        chosen: list[RowT] = []
        room = self._cap(ranked[0].size)
        for row in ranked:
            if row.group != group:
                continue
            if chosen and row.model_rows > room:
                break
            chosen.append(row)
            room -= row.model_rows
        return StepPlan(rows=tuple(chosen))

    def _deadline(self, row: RowT, now: float) -> float:
        call = self._seconds(row.size, row.model_rows)
        earliest = now + call * row.calls_left
        patience = BATCH_PATIENCE if row.is_batch else 1.0
        deadlines = [row.arrived + factor * patience * call * row.calls for factor in PATIENCE]
        return next((deadline for deadline in deadlines if earliest <= deadline), deadlines[-1])
