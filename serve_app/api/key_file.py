"""`KeyFile`: the key file while it is in use. It is read again when it changes."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serve_app.api.keys import Caller, read_keys
from serve_app.errors import ConfigError

LOOK_SECONDS = 1.0
"""How often a change of the file is looked for, at most."""

log = logging.getLogger("darkroom.keys")


class KeyFile:
    """The callers in a key file. While the file is broken, those that were read last stay.

    Args:
        clock: seconds that never go back.

    Raises:
        ConfigError: the file cannot be read now.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._stamp = _stamp_of(path)
        self._callers = read_keys(path)

    async def callers(self) -> Sequence[Caller]:
        """All callers. The file is looked at in a thread, once in `LOOK_SECONDS`."""
        now = self._clock()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            await asyncio.to_thread(self._look)
        return self._callers

    def _look(self) -> None:
        stamp = _stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._callers = read_keys(self._path)
        except ConfigError as error:
            log.error("the earlier keys stay valid: %s", error)


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    """What differs after any change of a file; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns
