"""`KeptResults`: finished results of requests with an `Idempotency-Key`, in memory, for their retries."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.config import IdempotencyConfig
from serve_app.requests.events import GeneratedImage


@dataclass(frozen=True, eq=False)
class KeptResult:
    """All images of a request, in order. `kept_at` is when the last one was finished."""

    owner: str
    fingerprint: str
    images: tuple[GeneratedImage, ...]
    kept_at: float

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(image.content) for image in self.images)


class KeptResults:
    """Keeps results up to a maximum age, a total size for each caller, and one for all callers together.

    The oldest go first; a caller's own oldest where the caller has too much. Any thread may call `get`.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, config: IdempotencyConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._results: dict[str, KeptResult] = {}
        self._sizes: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self._sizes.values())

    @property
    def max_age_s(self) -> float:
        """How long a result is kept, seconds."""
        return self._config.max_age_s

    def use(self, config: IdempotencyConfig) -> None:
        """Forget all results, and keep new ones by other limits."""
        self._config = config
        self._results.clear()
        self._sizes.clear()

    def keep(self, key: str, owner: str, fingerprint: str, images: tuple[GeneratedImage, ...]) -> None:
        """Keep a result, unless it alone is over a limit."""
        result = KeptResult(owner, fingerprint, images, self._clock())
        most, most_of_one = self._config.max_mb * 2**20, self._config.max_mb_per_caller * 2**20
        self.expire()
        if result.size > min(most, most_of_one):
            return
        self._forget(key)
        for one in [one for one, kept in self._results.items() if kept.owner == owner]:
            if self._sizes.get(owner, 0) + result.size > most_of_one:
                self._forget(one)
        for one in list(self._results):
            if self.size + result.size > most:
                self._forget(one)
        self._results[key] = result
        self._sizes[owner] = self._sizes.get(owner, 0) + result.size

    def get(self, key: str) -> KeptResult | None:
        """A result; None where it is too old, or was never kept."""
        result = self._results.get(key)
        return result if result is not None and not self._is_old(result) else None

    def expire(self) -> None:
        """Forget the results that are too old."""
        for key, result in list(self._results.items()):
            if not self._is_old(result):
                break
            self._forget(key)

    def _is_old(self, result: KeptResult) -> bool:
        return self._clock() - result.kept_at > self._config.max_age_s

    def _forget(self, key: str) -> None:
        result = self._results.pop(key, None)
        if result is not None:
            self._sizes[result.owner] -= result.size
            if not self._sizes[result.owner]:
                del self._sizes[result.owner]
