"""Schedulers with other servers' rules, to be run in our engine or its simulation beside its own."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from serve_app.engine.scheduler import Row, StepPlan
from serve_app.requests.step_curve import Size

RowT = TypeVar("RowT", bound=Row)


class _InOrderOfArrival(Generic[RowT]):
    """Rows wait in order of arrival, and run from their first step to their last.

    Args:
        cap: UNet rows of one forward.
    """

    def __init__(self, cap: Callable[[Size], int]) -> None:
        self._cap = cap
        self._waiting: dict[RowT, None] = {}
        self._running: dict[RowT, None] = {}

    def add(self, row: RowT) -> None:
        """See `Scheduler`."""
        self._waiting[row] = None

    def discard(self, row: RowT) -> None:
        """See `Scheduler`."""
        self._waiting.pop(row, None)
        self._running.pop(row, None)

    def plan(self) -> StepPlan[RowT] | None:
        """See `Scheduler`."""
        self._admit()
        return StepPlan(rows=tuple(self._running)) if self._running else None

    def _admit(self) -> None:
        raise NotImplementedError

    def _begin(self, row: RowT) -> None:
        del self._waiting[row]
        self._running[row] = None

    def _fits(self, row: RowT) -> bool:
        rows = sum(one.model_rows for one in self._running)
        return not rows or rows + row.model_rows <= self._cap(row.size)


class KeyedFifo(_InOrderOfArrival[RowT]):
    """vLLM-Omni's step-wise batching: rows of one `key` share a batch, and may join it before any step.

    What waits is admitted in order of arrival, up to the first row whose key is another.
    """

    def __init__(self, cap: Callable[[Size], int], key: Callable[[RowT], Hashable]) -> None:
        super().__init__(cap)
        self._key = key

    def _admit(self) -> None:
        for row in list(self._waiting):
            first = next(iter(self._running), row)
            if self._key(first) != self._key(row) or not self._fits(row):
                return
            self._begin(row)


class SameParameters(KeyedFifo[RowT]):
    """Dynamic batching, as Ray's `@serve.batch`: a batch of equal keys is put together once, from all that waits."""

    def _admit(self) -> None:
        if self._running or not self._waiting:
            return
        key = self._key(next(iter(self._waiting)))
        for row in list(self._waiting):
            if self._key(row) == key and self._fits(row):
                self._begin(row)


class FixedWidth(_InOrderOfArrival[RowT]):
    """Any rows of the oldest one's group share a batch, in order of arrival, always up to the same width."""

    def __init__(self, rows: int) -> None:
        super().__init__(lambda _: rows)

    def _admit(self) -> None:
        oldest = next(iter(self._running), None) or next(iter(self._waiting), None)
        for row in list(self._waiting):
            if oldest is not None and row.group == oldest.group:
                if not self._fits(row):
                    return
                self._begin(row)
