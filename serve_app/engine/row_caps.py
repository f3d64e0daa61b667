"""`RowCaps`: how many rows to batch by size, and fewer after the device ran out of memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.requests.step_curve import Size

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 600.0, 86400.0


@dataclass(frozen=True)
class _Lowered:
    rows: int
    since: float
    wait: float


class RowCaps:
    """Call it with a latent size. Thread-safe.

    A lowered cap doubles again after ten minutes, since what filled the memory may have been a neighbour on the same
    device: a cap that never grew would make a replica slower for each such hour, until somebody restarts it. Where it
    was the rows themselves, finding that out costs one failed forward, and the wait is doubled each time.

    Args:
        cap: the most rows worth batching at a size.
        clock: seconds that never go back.
    """

    def __init__(self, cap: Callable[[Size], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._cap = cap
        self._clock = clock
        self._lowered: dict[Size, _Lowered] = {}

    def __call__(self, size: Size) -> int:
        """Rows to batch at this size."""
        most, low = self._cap(size), self._lowered.get(size)
        if low is None:
            return most
        doublings = min(32, int((self._clock() - low.since) / low.wait))
        return min(most, low.rows << doublings)

    def lower(self, size: Size, rows: int) -> None:
        """`rows` rows did not fit: from now on at most half of them, at least one."""
        before = self._lowered.get(size)
        wait = FIRST_WAIT_SECONDS if before is None else min(LONGEST_WAIT_SECONDS, 2 * before.wait)
        self._lowered[size] = _Lowered(min(self(size), max(1, rows // 2)), self._clock(), wait)
