"""An ingress replica's side of the usage actor: it asks, reports, and admits a share by itself while there is none."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError, RayTaskError

from serve_app.api.usage_ledger import Lease, UsageLedger, UsageReport
from serve_app.errors import LimitExceeded

ANSWER_SECONDS = 1.0
"""How long a request waits for the actor. After that the actor counts as away until it answers a report."""
REPORT_SECONDS = 1.0
"""How often the actor is told what is in flight here."""
START_REPORTS = 5

log = logging.getLogger("darkroom.usage")


class UsageConnection:
    """Calls of the usage actor that take `ANSWER_SECONDS` at most.

    Args:
        find: the actor's handle; it may block, and is called in a thread.
    """

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find
        self._actor: Any = None

    async def call(self, method: str, *args: Any) -> None:
        """Call a method. Where the handle is known, the call is sent before the first `await`.

        Raises:
            LimitExceeded: the actor refuses.
            TimeoutError: it is slow.
            RayError: it is away.
        """
        if self._actor is None:
            self._actor = await asyncio.wait_for(asyncio.to_thread(self._find), ANSWER_SECONDS)
        try:
            await asyncio.wait_for(getattr(self._actor, method).remote(*args), ANSWER_SECONDS)
        except RayTaskError as error:
            if isinstance(error.cause, LimitExceeded):
                raise error.cause from None
            raise
        except RayError:
            self._actor = None  # an actor that has ended for good has a successor
            raise

    def send(self, method: str, *args: Any) -> None:
        """Call a method without waiting for its answer; nothing happens where the actor was never reached."""
        if self._actor is not None:
            getattr(self._actor, method).remote(*args)


class SharedUsage:
    """A `Usage` over the usage actor. While it is away, this replica admits its share of every limit.

    What was admitted meanwhile is reported afterwards, so that nothing is lost, and nothing is counted twice.

    Args:
        connection: calls the usage actor.
        count_replicas: how many ingress replicas there are now.
    """

    def __init__(self, connection: UsageConnection, count_replicas: Callable[[], int]) -> None:
        self.holder = secrets.token_hex(16)
        self.is_away = True
        self._connection = connection
        self._count_replicas = count_replicas
        self._local = UsageLedger()
        self._held: dict[str, Lease] = {}
        self._pending: set[str] = set()
        self._reporting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to report. The first call waits for the actor to start, a few seconds at most."""
        if self._reporting is None:
            for _ in range(START_REPORTS):
                await self._report()
                if not self.is_away:
                    break
            else:
                log.warning("the usage actor has not started; this replica admits its share until it does")
            self._reporting = asyncio.create_task(self._keep_reporting())

    async def admit(self, lease: Lease) -> None:
        """See `Usage`."""
        if not self.is_away:
            self._pending.add(lease.id)
            try:
                await self._connection.call("admit", lease)
            except (RayError, TimeoutError) as error:
                self._note_away(error)
            else:
                self._hold(lease)
                return
            finally:
                self._pending.discard(lease.id)
        self._local.share = 1 / self._count_replicas()
        self._local.expire()
        self._local.admit(lease)
        self._hold(lease)

    def _hold(self, lease: Lease) -> None:
        self._held[lease.id] = lease
        self._local.note(lease, least_tokens=0.0)  # other replicas may have used this one's share

    async def end(self, lease: Lease) -> None:
        """See `Usage`."""
        self._held.pop(lease.id, None)
        self._local.end(lease.caller, lease.id)
        if not self.is_away:
            try:
                await self._connection.call("end", lease.caller, lease.id)
            except (RayError, TimeoutError) as error:
                self._note_away(error)

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            await self._report()

    async def _report(self) -> None:
        """Tell the actor all that is in flight. Its leases of this replica that are not among them end."""
        report = UsageReport(self.holder, held=tuple(self._held.values()), pending=frozenset(self._pending))
        # The local ledger hears of its holder as the actor does.
        self._local.take_report(report)
        self._local.expire()
        try:
            await self._connection.call("report", report)
        except (RayError, TimeoutError) as error:
            self._note_away(error)
        else:
            self.is_away = False

    def _note_away(self, error: Exception) -> None:
        if not self.is_away:
            log.warning("the usage actor does not answer; this replica admits its share: %r", error)
        self.is_away = True
