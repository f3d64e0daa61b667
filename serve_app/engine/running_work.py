"""`RunningWork`: what an engine's threads are doing, since when, and how long that may take. It shows what hangs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MIN_LIMIT_SECONDS = 10.0
LIMIT_FACTOR = 8.0
"""Work hangs once it has taken this many times what it should take, and `MIN_LIMIT_SECONDS`."""
FADING = 0.9
"""The slowest of its kind is remembered, and counts for a tenth less with each one after it."""


@dataclass(frozen=True, eq=False)
class _Piece:
    began: float
    limit_s: float


class RunningWork:
    """Pieces of work in progress: a step, an encoding, a decoding, a file. Thread-safe, without a lock.

    A thread that waits for its queue does nothing. Denoising steps have a limit by the step curve, see `LoadMeter`.
    The other kinds have one by the slowest of their kind lately, and `stall_seconds` until one is done.

    Args:
        stall_seconds: what work of unknown duration may take.
        clock: seconds that never go back.
    """

    def __init__(self, stall_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._pieces: dict[_Piece, None] = {}
        self._slowest: dict[str, float] = {}

    @contextmanager
    def during(self, limit_s: float) -> Iterator[None]:
        """While inside, the work is in progress."""
        piece = _Piece(self._clock(), limit_s)
        self._pieces[piece] = None
        try:
            yield
        finally:
            del self._pieces[piece]

    @contextmanager
    def during_kind(self, kind: str, units: int) -> Iterator[None]:
        """The same, for work of `units` (pixels, prompts) of which there is no curve."""
        known, began = self._slowest.get(kind), self._clock()
        limit_s = self._stall_seconds if known is None else hang_limit(known * units)
        with self.during(limit_s):
            yield
        took = (self._clock() - began) / max(1, units)
        self._slowest[kind] = max(took, FADING * (known or 0.0))

    def nearest_limit(self) -> tuple[float, float]:
        """Age and limit, in seconds, of the piece that has used the largest part of its limit. Age 0 if none runs."""
        now = self._clock()
        found = [(now - piece.began, piece.limit_s) for piece in list(self._pieces)]
        return max(found, key=lambda one: one[0] / one[1], default=(0.0, MIN_LIMIT_SECONDS))

    def oldest_s(self) -> float:
        """The age of the piece that began first, in seconds; 0 if none runs."""
        now = self._clock()
        return max((now - piece.began for piece in list(self._pieces)), default=0.0)


def hang_limit(expected_s: float) -> float:
    """Seconds that work may take which should take `expected_s`."""
    return max(MIN_LIMIT_SECONDS, LIMIT_FACTOR * expected_s)
