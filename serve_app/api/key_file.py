"""`KeyFile`: the key file while it is in use. It is read again when it changes, and changed by `darkroom keys`."""

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serve_app.api.keys import Caller, new_key, read_keys
from serve_app.errors import ConfigError

LOOK_SECONDS = 1.0
"""How often a change of the file is looked for, at most."""
NAME = re.compile(r"[\w.@-]{1,100}")

log = logging.getLogger("darkroom.keys")


class KeyFile:
    """The callers in a key file. While the file is broken, those that were read last stay.

    Args:
        clock: seconds that never go back.

    Raises:
        ConfigError: the file cannot be read now.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.mistake = ""
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
            self.mistake = ""
        except ConfigError as error:
            self.mistake = str(error)
            log.error("the earlier keys stay valid: %s", error)


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    """What differs after any change of a file; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns


def add_key(path: Path, name: str) -> str:
    """Make a key for `name`, write its hash into the file, and return the key: it is stored nowhere.

    Raises:
        ConfigError: the file cannot be read or written, or has this name, or the name is none.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"the name must be letters, digits and any of ._@-, got {name!r}")
    entries = _read_entries(path) if path.exists() else []
    if any(entry["name"] == name for entry in entries):
        raise ConfigError(f"{path}: has a key {name} already: revoke it, or take another name")
    key, entry = new_key(name)
    _write_entries(path, [*entries, json.loads(entry)])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file; raises ConfigError where it is not there."""
    entries = _read_entries(path)
    kept = [entry for entry in entries if entry["name"] != name]
    if len(kept) == len(entries):
        raise ConfigError(f"{path}: has no key {name}")
    _write_entries(path, kept)


def _read_entries(path: Path) -> list[dict[str, Any]]:
    """The entries as they are written; raises ConfigError where one is wrong."""
    read_keys(path)
    return json.loads(path.read_text())


def _write_entries(path: Path, entries: list[dict[str, Any]]) -> None:
    """Only the owner may read the file. A reader sees the earlier content or this one, never a part."""
    part = path.with_name(f".{path.name}.part")
    text = "[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in entries) + "\n]\n"
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
