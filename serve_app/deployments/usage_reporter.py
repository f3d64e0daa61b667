"""A model replica's reports to the usage actor: the device seconds of each caller."""

import asyncio
import secrets
from collections.abc import Callable, Mapping

from ray.exceptions import RayError

from serve_app.api.usage_ledger import UsageReport
from serve_app.deployments.shared_usage import REPORT_SECONDS, UsageConnection


class UsageReporter:
    """Sends what `take` returns, once a second. While the actor is away, it waits here.

    Args:
        connection: calls the usage actor.
        take: the device seconds of each caller since its last call.
    """

    def __init__(self, connection: UsageConnection, take: Callable[[], Mapping[str, float]]) -> None:
        self._connection = connection
        self._take = take
        self._holder = secrets.token_hex(16)
        self._number = 0
        self._unsent: list[UsageReport] = []
        self._reporting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to report."""
        if self._reporting is None:
            self._reporting = asyncio.create_task(self._keep_reporting())

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if not self._unsent:
                self.add(self._take())
            await self._send()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Send these seconds of each caller, too, with the next beat."""
        if seconds:
            self._number += 1
            self._unsent.append(UsageReport(self._holder, self._number, device_seconds=seconds))

    async def _send(self) -> None:
        """Send what there is. A report that was not answered is sent again as it was, before any later one."""
        while self._unsent:
            try:
                await self._connection.call("report", self._unsent[0])
            except (RayError, TimeoutError):
                return
            del self._unsent[0]

    def finish(self) -> None:
        """Send the rest, and do not wait."""
        self.add(self._take())
        for report in self._unsent:
            self._connection.send("report", report)
