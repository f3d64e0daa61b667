"""The limits of each key: requests per second, images in flight, and device seconds per day."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.api.keys import Caller
from serve_app.errors import LimitExceeded, UnknownName

DAY_SECONDS = 24 * 3600.0


@dataclass
class KeyUsage:
    """What one key has used: its token bucket, its images in flight, and (time, device seconds) of the last day."""

    tokens: float
    filled_at: float
    in_flight: int = 0
    spent: deque[tuple[float, float]] = field(default_factory=deque)


class RateLimiter:
    """Admits the images of callers, and counts what they cost. Each ingress replica has its own.

    Args:
        share: this replica's part of each limit, 1 / number of ingress replicas. It may be changed.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.share = share
        self._clock = clock
        self._usage: dict[str, KeyUsage] = {}

    def admit(self, caller: Caller, model: str, images: int) -> None:
        """Count a request for `images` images; raises UnknownName or LimitExceeded, and then counts nothing.

        Every admitted request must be released.
        """
        if caller.models is not None and model not in caller.models:
            raise UnknownName("model", model, f"must be one of {', '.join(caller.models)} for this key")
        if not _has_limits(caller):
            return
        now = self._clock()
        usage = self._usage.setdefault(caller.name, KeyUsage(tokens=caller.burst * self.share, filled_at=now))
        allowed = None if caller.concurrency is None else max(1, round(caller.concurrency * self.share))
        if allowed is not None and usage.in_flight + images > allowed:
            raise LimitExceeded(f"this key may have at most {allowed} images in flight", 1)
        self._check_day(caller, usage, now)
        if caller.rate is not None:
            self._take_token(caller, usage, now)
        usage.in_flight += images

    def release(self, caller: Caller, images: int, device_seconds: float) -> None:
        """Count `images` images as ended, finished or not, and the device seconds that they took together."""
        if not _has_limits(caller):
            return
        usage = self._usage[caller.name]
        usage.in_flight -= images
        if device_seconds and caller.daily_device_seconds is not None:
            usage.spent.append((self._clock(), device_seconds))

    def _take_token(self, caller: Caller, usage: KeyUsage, now: float) -> None:
        rate = (caller.rate or 0.0) * self.share
        usage.tokens = min(max(1.0, caller.burst * self.share), usage.tokens + (now - usage.filled_at) * rate)
        usage.filled_at = now
        if usage.tokens < 1:
            raise LimitExceeded(
                f"this key may send at most {caller.rate:g} requests per second", (1 - usage.tokens) / rate
            )
        usage.tokens -= 1

    def _check_day(self, caller: Caller, usage: KeyUsage, now: float) -> None:
        if caller.daily_device_seconds is None:
            return
        while usage.spent and usage.spent[0][0] < now - DAY_SECONDS:
            usage.spent.popleft()
        if sum(seconds for _, seconds in usage.spent) >= caller.daily_device_seconds * self.share:
            wait = usage.spent[0][0] + DAY_SECONDS - now
            allowed = f"{caller.daily_device_seconds:g} device seconds"
            raise LimitExceeded(f"this key may use at most {allowed} per day", wait)


def _has_limits(caller: Caller) -> bool:
    return not (caller.rate is None and caller.concurrency is None and caller.daily_device_seconds is None)
