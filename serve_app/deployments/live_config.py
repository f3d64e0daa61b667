"""A deployment's `user_config` while it runs."""

import logging
from typing import Generic, TypeVar

from serve_app.config import Strict
from serve_app.config.mistakes import locate, read_config
from serve_app.deployments.held_gauge import HeldGauge
from serve_app.errors import ConfigError, NotReady

Config = TypeVar("Config", bound=Strict)

log = logging.getLogger("darkroom.config")


class LiveConfig(Generic[Config]):
    """The config in force, and why the latest change was refused.

    Mistakes of the first config are raised, and Serve refuses the deployment. Mistakes of later ones are logged, and a
    metric shows them: if they were raised, Serve would replace the replica, and the next one would fail as well.
    """

    def __init__(self, deployment: str, kind: type[Config]) -> None:
        self._key = f"deployments.{deployment}.user_config"
        self._kind = kind
        self._current: Config | None = None
        self._refused = HeldGauge("darkroom_config_refused", "1 while the latest user_config is refused, else 0.")
        self.refusal = ""

    @property
    def current(self) -> Config:
        """The config in force. Raises NotReady before the first one."""
        if self._current is None:
            raise NotReady(f"{self._key}: must be given")
        return self._current

    @property
    def is_set(self) -> bool:
        """Whether a config is in force."""
        return self._current is not None

    def read(self, values: object) -> Config:
        """`values` as a config. Raises ConfigError with a line for each mistake."""
        return read_config(self._kind, values, self._key)

    def accept(self, config: Config) -> None:
        """Put a config in force."""
        self._current = config
        self.refusal = ""
        self._refused.set(0)

    def refuse(self, error: ConfigError) -> None:
        """Keep the config in force; raise the error where there is none. It gets the key where it names none."""
        text = str(error)
        text = text if text.startswith(self._key) else locate(self._key, text)
        if self._current is None:
            raise type(error)(text) from error
        self.refusal = text
        self._refused.set(1)
        log.error("the new config is refused, the earlier one stays in force: %s", self.refusal)
