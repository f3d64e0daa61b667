"""The ingress publishes its edge settings in Ray's key-value store, and every proxy of the cluster reads them there.

So a limit is configured once, and a change of the config reaches the proxies while they run.
"""

import asyncio
import logging
import time

from ray import serve
from ray.exceptions import RayError
from ray.experimental import internal_kv

from serve_app.config import EdgeSettings
from serve_app.config.edge_settings import loosest

NAMESPACE = "darkroom-edge"
MAX_AGE_SECONDS = 0.25
"""How old the settings may be with which a proxy judges a request."""
REPEAT_SECONDS, STALE_SECONDS = 20.0, 120.0
"""How often an application publishes its settings, and after how long of silence they are not counted."""
WAIT_SECONDS = 0.5
"""How long a request waits for the store. Then the settings that were read last hold."""

log = logging.getLogger("darkroom.edge")


class SettingsPublisher:
    """Publishes the settings of this replica's application, again and again: a deleted one soon counts no more."""

    def __init__(self) -> None:
        self._settings: EdgeSettings | None = None
        self._repeating: asyncio.Task[None] | None = None

    async def publish(self, settings: EdgeSettings) -> None:
        """Publish these instead of the earlier ones."""
        self._settings = settings
        await asyncio.to_thread(write_settings, settings)
        if self._repeating is None:
            self._repeating = asyncio.create_task(self._repeat())

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(REPEAT_SECONDS)
            if self._settings is not None:
                try:
                    await asyncio.to_thread(write_settings, self._settings)
                except RayError as error:
                    log.warning("the settings of the edge cannot be published: %s", error)


def write_settings(settings: EdgeSettings) -> None:
    """Write the settings of this replica's application, and the time. It blocks: call it in a thread."""
    if not internal_kv._internal_kv_initialized():
        return  # Serve's local testing mode has no cluster, and no proxies
    application = serve.get_replica_context().app_name
    internal_kv._internal_kv_put(application, f"{time.time()}\n{settings.model_dump_json()}", namespace=NAMESPACE)


def read_published() -> list[EdgeSettings]:
    """The settings of every application. Those of another version are left out. It blocks: call it in a thread."""
    found = []
    for name in internal_kv._internal_kv_list("", namespace=NAMESPACE):
        content = internal_kv._internal_kv_get(name, namespace=NAMESPACE)
        try:
            found += parse_published(content or b"", time.time())
        except ValueError as error:
            log.warning("the settings of application %s cannot be read: %s", name.decode(), error)
    return found


def parse_published(content: bytes, now: float) -> list[EdgeSettings]:
    """What an application wrote; nothing where it has stopped writing. Raises ValueError."""
    written, _, settings = content.partition(b"\n")
    return [EdgeSettings.model_validate_json(settings)] if now - float(written) < STALE_SECONDS else []


class PublishedSettings:
    """The settings in force, read again when they are older than `MAX_AGE_SECONDS` and a request comes."""

    def __init__(self) -> None:
        self._current = loosest([])
        self._began = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def __call__(self) -> EdgeSettings:
        """The settings; the last known ones where the store does not answer."""
        if self._reading is None or self._reading.done():
            if time.monotonic() - self._began <= MAX_AGE_SECONDS:
                return self._current
            self._began = time.monotonic()
            self._reading = asyncio.create_task(self._read())
        await asyncio.wait([self._reading], timeout=WAIT_SECONDS)
        return self._current

    async def _read(self) -> None:
        try:
            self._current = loosest(await asyncio.to_thread(read_published))
        except RayError as error:
            log.warning("the settings that were read last hold: %s", error)
