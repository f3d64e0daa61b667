"""What each caller has used, held to its limits. One per ingress replica: each allows its share."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.api.callers import Caller
from serve_app.errors import LimitExceeded, UnknownName

DAY = 24 * 3600.0


@dataclass
class KeyUsage:
    """One caller's: a token bucket, images in flight, and device seconds by when they were spent."""

    tokens: float
    filled: float
    in_flight: int = 0
    spent: deque[tuple[float, float]] = field(default_factory=deque)


class Limiter:
    """Admits images and remembers what they cost.

    Args:
        share: the part of each limit that is this process's.
        clock: seconds that never go back.
    """

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._usage: dict[str, KeyUsage] = {}

    def admit(self, caller: Caller, model: str, images: int) -> None:
        """Let a request of so many images begin; raises UnknownName and LimitExceeded, and then counts nothing."""
        if caller.models is not None and model not in caller.models:
            raise UnknownName("model", model, f"must be one of {', '.join(caller.models)} for this key")
        if not _limited(caller):
            return
        now = self._clock()
        usage = self._usage.setdefault(caller.name, KeyUsage(caller.burst * self._share, now))
        room = None if caller.concurrency is None else max(1, round(caller.concurrency * self._share))
        if room is not None and usage.in_flight + images > room:
            raise LimitExceeded(f"at most {room} images at once for this key", 1)
        self._check_day(caller, usage, now)
        if caller.rate is not None:
            self._take_token(caller, usage, now)
        usage.in_flight += images

    def release(self, caller: Caller, images: int, device_seconds: float) -> None:
        """So many images have ended, however they did, after so much of the denoiser's time."""
        if not _limited(caller):
            return
        usage = self._usage[caller.name]
        usage.in_flight -= images
        if device_seconds and caller.daily_device_seconds is not None:
            usage.spent.append((self._clock(), device_seconds))

    def _take_token(self, caller: Caller, usage: KeyUsage, now: float) -> None:
        rate = (caller.rate or 0.0) * self._share
        usage.tokens = min(max(1.0, caller.burst * self._share), usage.tokens + (now - usage.filled) * rate)
        usage.filled = now
        if usage.tokens < 1:
            raise LimitExceeded(f"at most {caller.rate:g} requests a second for this key", (1 - usage.tokens) / rate)
        usage.tokens -= 1

    def _check_day(self, caller: Caller, usage: KeyUsage, now: float) -> None:
        if caller.daily_device_seconds is None:
            return
        while usage.spent and usage.spent[0][0] < now - DAY:
            usage.spent.popleft()
        if sum(seconds for _, seconds in usage.spent) >= caller.daily_device_seconds * self._share:
            wait = usage.spent[0][0] + DAY - now
            raise LimitExceeded(f"at most {caller.daily_device_seconds:g} device seconds a day for this key", wait)


def _limited(caller: Caller) -> bool:
    return not (caller.rate is None and caller.concurrency is None and caller.daily_device_seconds is None)
