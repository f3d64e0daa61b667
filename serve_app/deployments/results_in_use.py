"""The store of results over the life of an ingress replica: it changes with the config, and is swept."""

import asyncio
import logging
import secrets

from serve_app.api.link_secret import LEAST_BYTES, read_secret
from serve_app.api.result_store import ResultStore
from serve_app.config import ResultsConfig

SWEEP_SECONDS = 60.0

log = logging.getLogger("darkroom.results")


class ResultsInUse:
    """Opens stores, and deletes the expired images of the one in use. The secret of this start outlives them all."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(LEAST_BYTES)
        self._store: ResultStore | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def open(self, config: ResultsConfig) -> ResultStore:
        """A store. It reads and writes files: call it in a thread. Raises ConfigError."""
        return ResultStore(config, read_secret(config, self._secret))

    def use(self, store: ResultStore) -> None:
        """Sweep this store from now on, once in `SWEEP_SECONDS`."""
        self._store = store
        self._sweeping = self._sweeping or asyncio.create_task(self._keep_sweeping())

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if self._store is not None:
                try:
                    await asyncio.to_thread(self._store.sweep)
                except OSError as error:
                    log.error("expired results cannot be deleted: %s", error)
