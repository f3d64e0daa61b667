"""Which models cannot draw yet, and what stands in their way."""

import asyncio
import logging
import time
from collections.abc import Mapping

from serve_app.config import IngressConfig
from serve_app.config.names import INGRESS
from serve_app.config.request_checks import find_unusable_settings
from serve_app.deployments import serve_state
from serve_app.deployments.capabilities_cache import CapabilitiesCache
from serve_app.deployments.live_config import LiveConfig
from serve_app.deployments.replica_fleet import ReplicaFleet
from serve_app.errors import ConfigError

BEAT_SECONDS = 0.2
BEATS = 5
"""A replica that Serve has just told of has sent its first heartbeat after so many beats."""
ASK_SECONDS = 1.0

log = logging.getLogger("darkroom")


class Readiness:
    """Tells which models cannot draw now, and says in the log when all can for the first time."""

    def __init__(
        self,
        config: LiveConfig[IngressConfig],
        capabilities: CapabilitiesCache,
        fleets: Mapping[str, ReplicaFleet],
    ) -> None:
        self._config = config
        self._capabilities = capabilities
        self._fleets = fleets
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
        """The models that should be up and have no replica that answers. A full one answers; one at zero need not.

        Raises:
            ConfigError: a checkpoint cannot follow the defaults that the first config gives its model.
        """
        unknown = [name for name in self._fleets if name not in self._capabilities.known]
        await asyncio.gather(*(self._capabilities.refresh(name) for name in unknown))
        errors = self._find_unusable()
        if errors and not self._was_ready:
            raise ConfigError("\n".join(errors))
        silent = await self._find_silent(wait=bool(unknown))
        asleep = await asyncio.gather(*(asyncio.to_thread(serve_state.is_scaled_to_zero, name) for name in silent))
        missing = [name for name, sleeps in zip(silent, asleep, strict=True) if not sleeps]
        self._was_ready = self._was_ready or not missing
        return missing

    async def _find_silent(self, wait: bool) -> list[str]:
        """The models of which no replica answers."""
        for _ in range(BEATS if wait else 0):
            if all(self._fleets[name].is_up for name in self._capabilities.known):
                break
            await asyncio.sleep(BEAT_SECONDS)
        return [name for name, fleet in self._fleets.items() if not fleet.is_up]

    async def find_config_errors(self) -> list[str]:
        """See `Service.config_errors`. The replicas are asked once a second at most, as anybody may ask for this."""
        if self._asking is None or time.monotonic() - self._asked_at > ASK_SECONDS:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask_refusals())
        refused = await asyncio.shield(self._asking)
        lines = [line for text in (self._config.refusal, *refused) for line in text.splitlines()]
        return list(dict.fromkeys([*lines, *self._find_unusable()]))

    async def _ask_refusals(self) -> list[str]:
        """What each replica refuses."""
        told = await asyncio.gather(*(fleet.ask_each("refusal") for fleet in self._fleets.values()))
        return [refusal for answers in told for refusal in answers.values()]

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
