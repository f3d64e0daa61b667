"""Which models cannot draw yet, and what stands in their way."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from serve_app.config import IngressConfig
from serve_app.config.names import INGRESS
from serve_app.config.request_checks import find_unusable_settings
from serve_app.deployments import serve_state
from serve_app.deployments.capabilities_cache import CapabilitiesCache
from serve_app.deployments.live_config import LiveConfig
from serve_app.errors import ConfigError

BEAT_SECONDS = 0.2
REFUSAL_SECONDS = 0.5
ASK_SECONDS = 1.0

log = logging.getLogger("darkroom")


class Readiness:
    """Asks until every model has answered once, and says so in the log. A model that has answered stays ready."""

    def __init__(
        self, config: LiveConfig[IngressConfig], capabilities: CapabilitiesCache, replicas: Mapping[str, Any]
    ) -> None:
        self._config = config
        self._capabilities = capabilities
        self._models = tuple(replicas)
        self._handles = tuple(replicas.values())
        self._was_ready = False
        self._logged: set[str] = set()
        self._asking: asyncio.Task[list[str]] | None = None
        self._asked_at = 0.0
        self._announcement: asyncio.Task[None] | None = None

    def announce(self) -> None:
        """Log the address once everything is up. The first call does it."""
        if self._announcement is None:
            self._announcement = asyncio.create_task(self._announce())

    async def find_missing(self) -> list[str]:
        """The models that should be up and have not answered yet.

        Raises:
            ConfigError: a checkpoint cannot follow the defaults that the first config gives its model.
        """
        unknown = [name for name in self._models if name not in self._capabilities.known]
        await asyncio.gather(*(self._capabilities.refresh(name) for name in unknown))
        errors = self._find_unusable()
        if errors and not self._was_ready:
            raise ConfigError("\n".join(errors))
        silent = [name for name in unknown if name not in self._capabilities.known]
        asleep = await asyncio.gather(*(asyncio.to_thread(serve_state.is_scaled_to_zero, name) for name in silent))
        missing = [name for name, sleeps in zip(silent, asleep, strict=True) if not sleeps]
        self._was_ready = self._was_ready or not missing
        # A model that wakes from zero replicas later does not make the others unready.
        return [] if self._was_ready else missing

    async def find_config_errors(self) -> list[str]:
        """See `Service.config_errors`. The replicas are asked once a second at most, as anybody may ask for this."""
        if self._asking is None or time.monotonic() - self._asked_at > ASK_SECONDS:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask_refusals())
        refused = await asyncio.shield(self._asking)
        lines = [line for text in (self._config.refusal, *refused) for line in text.splitlines()]
        return list(dict.fromkeys([*lines, *self._find_unusable()]))

    async def _ask_refusals(self) -> list[str]:
        """What each replica refuses. One that is full does not answer in time, and is left out."""
        asked = [handle.broadcast("refusal").results_async(timeout_s=REFUSAL_SECONDS) for handle in self._handles]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [text for answer in answers if not isinstance(answer, BaseException) for text in answer]

    def _find_unusable(self) -> list[str]:
        """Settings that a model's checkpoint cannot follow. Each is logged once."""
        found = [
            f"deployments.{INGRESS}.user_config.{line}"
            for name, model in self._capabilities.known.items()
            for line in find_unusable_settings(self._config.current, name, model)
        ]
        for line in found:
            if line not in self._logged:
                log.error("%s", line)
        self._logged = set(found)
        return found

    async def _announce(self) -> None:
        while not (await asyncio.to_thread(serve_state.is_running) and await self._is_ready()):
            await asyncio.sleep(BEAT_SECONDS)
        if serve_state.is_first_replica():
            url = serve_state.find_url()
            log.info("Darkroom is ready: %s (docs at /docs)", url)

    async def _is_ready(self) -> bool:
        try:
            return not await self.find_missing()
        except ConfigError:
            return False
