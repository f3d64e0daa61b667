"""The ingress publishes its edge settings in Ray's key-value store, and every proxy of the cluster reads them there.

So a limit is configured once, and a change of the config reaches the proxies while they run.
"""

import asyncio
import logging
import time

from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.experimental import internal_kv

from serve_app.config import EdgeSettings
from serve_app.config.edge_settings import loosest

NAMESPACE = "darkroom-edge"
MAX_AGE_SECONDS = 0.25
"""How old the settings may be with which a proxy judges a request."""
WAIT_SECONDS = 0.5
"""How long a request waits for the store. Then the settings that were read last hold."""

log = logging.getLogger("darkroom.edge")


def publish_settings(settings: EdgeSettings) -> None:
    """Write the settings of this replica's application. It blocks: call it in a thread."""
    if not internal_kv._internal_kv_initialized():
        return  # Serve's local testing mode has no cluster, and no proxies
    application = serve.get_replica_context().app_name
    internal_kv._internal_kv_put(application, settings.model_dump_json(), namespace=NAMESPACE)


def read_published() -> list[EdgeSettings]:
    """The settings of every application. Those of another version are left out. It blocks: call it in a thread."""
    found = []
    for name in internal_kv._internal_kv_list("", namespace=NAMESPACE):
        content = internal_kv._internal_kv_get(name, namespace=NAMESPACE)
        try:
            found.append(EdgeSettings.model_validate_json(content or b""))
        except ValidationError as error:
            log.warning("the settings of application %s cannot be read: %s", name.decode(), error)
    return found


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
