"""`UsageLedger`: what each caller has used, and whether one more request is within its limits. No Ray, no I/O."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from serve_app.config import CallerLimits
from serve_app.errors import LimitExceeded

DAY_SECONDS = 24 * 3600.0
SPENT_SECONDS = 600.0
"""Device time is kept in sums over this long, so that a day takes at most 145 numbers."""
LEASE_SECONDS = 5.0
"""The images of a holder that has not reported for so long no longer count as in flight."""
HOLDER_SECONDS = 3600.0
"""The number of a holder's last report is kept for so long after it."""


@dataclass(frozen=True)
class Lease:
    """An admitted request: `images` in flight that `holder`, an ingress replica, holds for `caller`.

    A request without images draws nothing: only the rate counts for it.
    """

    id: str
    holder: str
    caller: str
    images: int
    limits: CallerLimits


@dataclass(frozen=True)
class UsageReport:
    """Everything that one holder knows: it may be sent again, and nothing is counted twice.

    `held` are its leases. `pending` are ids that it has asked for without an answer so far. `device_seconds` are those
    of each caller since the report before the one of this `number`.
    """

    holder: str
    number: int = 0
    held: tuple[Lease, ...] = ()
    pending: frozenset[str] = frozenset()
    device_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass
class CallerUsage:
    """What one caller has used. It holds plain values, so that it can be stored.

    `tokens` and `filled_at` are the token bucket of the rate, None before its first request. `leases` are (holder,
    images) by lease. `spent` are (begin, device seconds), the oldest first. `reports` are the numbers of the last
    reports, by holder.
    """

    tokens: float | None = None
    filled_at: float = 0.0
    leases: dict[str, tuple[str, int]] = field(default_factory=dict)
    spent: list[tuple[float, float]] = field(default_factory=list)
    reports: dict[str, int] = field(default_factory=dict)


USAGE = TypeAdapter(CallerUsage)
"""Reads and writes a caller's usage as JSON."""


class UsageLedger:
    """Admits the requests of callers, and counts what they cost.

    Args:
        share: the part of each limit that is admitted here. It may be changed.
        clock: Unix time in seconds.
    """

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        self.share = share
        self._clock = clock
        self._callers: dict[str, CallerUsage] = {}
        self._heard_at: dict[str, float] = {}
        self._limits: dict[str, CallerLimits] = {}

    def load(self, callers: Mapping[str, CallerUsage]) -> None:
        """Begin with what was stored. Its holders have `LEASE_SECONDS` to report."""
        self._callers.update(callers)
        holders = {holder for usage in callers.values() for holder, _ in usage.leases.values()}
        holders |= {holder for usage in callers.values() for holder in usage.reports}
        self._heard_at.update(dict.fromkeys(holders, self._clock()))

    def usage_of(self, caller: str) -> CallerUsage | None:
        """What a caller has used; None where nothing is known, or nothing that still counts."""
        return self._callers.get(caller)

    def admit(self, lease: Lease) -> None:
        """Count a request. The same lease is counted once, however often it comes.

        Raises:
            LimitExceeded: a limit is reached. Then nothing is counted.
        """
        now, usage, limits = self._clock(), self._callers.get(lease.caller) or CallerUsage(), lease.limits
        if lease.id in usage.leases:
            return
        if limits.concurrency is not None and lease.images:
            allowed = max(1, int(limits.concurrency * self.share))
            if sum(images for _, images in usage.leases.values()) + lease.images > allowed:
                raise LimitExceeded(f"at most {allowed} images may be in flight", 1)
        if lease.images:
            _check_day(usage, limits, self.share, now)
        tokens = self._tokens(usage, limits, now)
        if limits.rate is not None and tokens < 1:
            wait = (1 - tokens) / (limits.rate * self.share)
            raise LimitExceeded(f"at most {limits.rate:g} requests per second may be sent", wait)
        self.note(lease)

    def note(self, lease: Lease, least_tokens: float = -math.inf) -> None:
        """Count a request that has been admitted elsewhere, whatever its limits. The bucket keeps `least_tokens`."""
        now, usage = self._clock(), self._callers.setdefault(lease.caller, CallerUsage())
        self._heard_at.setdefault(lease.holder, now)
        self._limits[lease.caller] = lease.limits
        if lease.id not in usage.leases:
            tokens = self._tokens(usage, lease.limits, now) - 1
            usage.tokens, usage.filled_at = max(tokens, least_tokens), now
            usage.leases[lease.id] = (lease.holder, lease.images)

    def end(self, caller: str, lease: str) -> None:
        """A request has ended. It may be told more than once."""
        usage = self._callers.get(caller)
        if usage is not None:
            usage.leases.pop(lease, None)

    def take_report(self, report: UsageReport) -> set[str]:
        """Follow a holder: end the leases it no longer has, count those that are new. Returns the callers concerned."""
        now = self._clock()
        self._heard_at[report.holder] = now
        kept = report.pending | {lease.id for lease in report.held}
        changed = self._end_leases(lambda holder, lease: holder == report.holder and lease not in kept)
        for lease in report.held:
            usage = self._callers.get(lease.caller)
            if usage is None or lease.id not in usage.leases:
                self.note(lease)
                changed.add(lease.caller)
        return changed | self._charge(report, now)

    def _charge(self, report: UsageReport, now: float) -> set[str]:
        """Count a report's device time, if it is new and the caller is not known to have no limit of it."""
        changed = set()
        for caller, seconds in report.device_seconds.items():
            limits = self._limits.get(caller)
            if limits is not None and limits.daily_device_seconds is None:
                continue
            usage = self._callers.setdefault(caller, CallerUsage())
            if report.number > usage.reports.get(report.holder, 0):
                usage.reports[report.holder] = report.number
                _spend(usage, seconds, now)
                changed.add(caller)
        return changed

    def expire(self) -> set[str]:
        """Forget what counts no longer: leases of silent holders, old device time. Returns the callers concerned."""
        now = self._clock()
        silent = {holder for holder, heard in self._heard_at.items() if now - heard > LEASE_SECONDS}
        changed = self._end_leases(lambda holder, _: holder in silent)
        gone = {holder for holder in silent if now - self._heard_at[holder] > HOLDER_SECONDS}
        self._heard_at = {holder: heard for holder, heard in self._heard_at.items() if holder not in gone}
        for caller, usage in list(self._callers.items()):
            usage.reports = {holder: number for holder, number in usage.reports.items() if holder not in gone}
            _drop_old(usage, now)
            if self._is_unused(caller, usage, now):
                del self._callers[caller]
                self._limits.pop(caller, None)
                changed.add(caller)
        return changed

    def _end_leases(self, ends: Callable[[str, str], bool]) -> set[str]:
        changed = set()
        for caller, usage in self._callers.items():
            ended = [lease for lease, (holder, _) in usage.leases.items() if ends(holder, lease)]
            for lease in ended:
                del usage.leases[lease]
            if ended:
                changed.add(caller)
        return changed

    def _is_unused(self, caller: str, usage: CallerUsage, now: float) -> bool:
        """Whether the caller is as one that never called. Without its limits, an hour fills its bucket."""
        limits = self._limits.get(caller)
        full = usage.tokens is None or now - usage.filled_at > HOLDER_SECONDS
        if limits is not None and not full:
            full = self._tokens(usage, limits, now) >= limits.burst * self.share
        return full and not usage.leases and not usage.spent

    def _tokens(self, usage: CallerUsage, limits: CallerLimits, now: float) -> float:
        """How many requests the bucket has room for. It is below 0 after requests that were admitted elsewhere."""
        most = max(1.0, limits.burst * self.share)
        if usage.tokens is None or limits.rate is None:
            return most
        return min(most, usage.tokens + max(0.0, now - usage.filled_at) * limits.rate * self.share)


def _check_day(usage: CallerUsage, limits: CallerLimits, share: float, now: float) -> None:
    if limits.daily_device_seconds is None:
        return
    _drop_old(usage, now)
    if _sum(usage.spent) >= limits.daily_device_seconds * share:
        wait = usage.spent[0][0] + SPENT_SECONDS + DAY_SECONDS - now
        raise LimitExceeded(f"at most {limits.daily_device_seconds:g} device seconds may be used per day", wait)


def _spend(usage: CallerUsage, seconds: float, now: float) -> None:
    if usage.spent and now - usage.spent[-1][0] < SPENT_SECONDS:
        begin, before = usage.spent[-1]
        usage.spent[-1] = (begin, before + seconds)
    else:
        usage.spent.append((now, seconds))


def _drop_old(usage: CallerUsage, now: float) -> None:
    usage.spent = [one for one in usage.spent if one[0] + SPENT_SECONDS + DAY_SECONDS > now]


def _sum(spent: Iterable[tuple[float, float]]) -> float:
    return sum(seconds for _, seconds in spent)
