"""Which rows take the next step. No tensors: a policy is small, pure and replaceable."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Size = tuple[int, int]
"""Latent height and width: all that one forward needs equal."""


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


class ArrivalOrder(Generic[RowT]):
    """Sizes take turns, a step each; within a size higher priorities, then the earliest arrivals, fill the batch.

    Args:
        cap: UNet rows worth putting into one forward of that size.
    """

    def __init__(self, cap: Callable[[Size], int]) -> None:
        self._cap = cap
        self._turns: dict[Size, dict[RowT, None]] = {}

    def add(self, row: RowT) -> None:
        """See `Scheduler`."""
        self._turns.setdefault(row.size, {})[row] = None

    def discard(self, row: RowT) -> None:
        """See `Scheduler`."""
        rows = self._turns.get(row.size, {})
        rows.pop(row, None)
        if not rows:
            self._turns.pop(row.size, None)

    def plan(self) -> StepPlan[RowT] | None:
        """See `Scheduler`. The size that is picked goes to the end of the line."""
        if not self._turns:
            return None
        size = next(iter(self._turns))
        waiting = self._turns.pop(size)
        self._turns[size] = waiting
        chosen: list[RowT] = []
        room = self._cap(size)
        for row in sorted(waiting, key=lambda row: -row.priority):
            if chosen and row.model_rows > room:
                break
            chosen.append(row)
            room -= row.model_rows
        return StepPlan(tuple(chosen))
