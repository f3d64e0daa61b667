"""Where the usage of callers is kept: a folder with a file for each, a hash in Redis, or nowhere."""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes, urlsplit

from pydantic import ValidationError
from redis import Redis

from serve_app.api.usage_ledger import USAGE, CallerUsage
from serve_app.config import UsageConfig
from serve_app.errors import ConfigError

log = logging.getLogger("darkroom.usage")

REDIS_KEY = "darkroom:usage:{application}"
REDIS_SECONDS = 0.5
"""A slower answer of Redis is an error: callers wait meanwhile."""


class UsageStore(Protocol):
    """Keeps texts by the name of a caller."""

    def load(self) -> Iterable[tuple[str, bytes]]:
        """All that is kept; raises OSError or RedisError."""
        ...

    def save(self, caller: str, text: bytes) -> None:
        """Keep a text instead of the caller's earlier one; raises OSError or RedisError."""
        ...

    def delete(self, caller: str) -> None:
        """Keep nothing of a caller; raises OSError or RedisError."""
        ...


class NoStore:
    """Keeps nothing."""

    def load(self) -> Iterable[tuple[str, bytes]]:
        """See `UsageStore`."""
        return []

    def save(self, caller: str, text: bytes) -> None:
        """See `UsageStore`."""

    def delete(self, caller: str) -> None:
        """See `UsageStore`."""


class FolderStore:
    """A file for each caller, so that the cost of a change does not grow with their number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Iterable[tuple[str, bytes]]:
        """See `UsageStore`."""
        for path in self._folder.glob("*.json"):
            name, _, text = path.read_bytes().partition(b"\n")
            yield unquote_to_bytes(name).decode(), text

    def save(self, caller: str, text: bytes) -> None:
        """See `UsageStore`. A reader sees the earlier content or this one, never a part."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(caller)
        part = path.with_suffix(".part")
        part.write_bytes(quote(caller).encode() + b"\n" + text)
        os.replace(part, path)

    def delete(self, caller: str) -> None:
        """See `UsageStore`."""
        with suppress(FileNotFoundError):
            self._path(caller).unlink()

    def _path(self, caller: str) -> Path:
        return self._folder / f"{hashlib.sha256(caller.encode()).hexdigest()[:32]}.json"


class RedisStore:
    """A hash in Redis."""

    def __init__(self, url: str, password: str | None, application: str) -> None:
        self._key = REDIS_KEY.format(application=application)
        self._redis: Redis = Redis.from_url(
            url, password=password, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
        )

    def load(self) -> Iterable[tuple[str, bytes]]:
        """See `UsageStore`."""
        found: dict[bytes, bytes] = self._redis.hgetall(self._key)  # pyright: ignore[reportAssignmentType]
        return [(name.decode(), text) for name, text in found.items()]

    def save(self, caller: str, text: bytes) -> None:
        """See `UsageStore`."""
        self._redis.hset(self._key, caller, text)  # pyright: ignore[reportArgumentType]

    def delete(self, caller: str) -> None:
        """See `UsageStore`."""
        self._redis.hdel(self._key, caller)


def open_store(config: UsageConfig, application: str) -> UsageStore:
    """The store that a config names, for one application. Nothing is read of it yet.

    Raises ConfigError where there is no password.
    """
    if config.url is None:
        return NoStore()
    parts = urlsplit(config.url)
    if parts.scheme == "file":
        return FolderStore(Path(parts.path) / quote(application, safe=""))
    try:
        password = Path(config.password_file).read_text().strip() if config.password_file else None
    except OSError as error:
        raise ConfigError(f"args.usage.password_file: {error}") from error
    return RedisStore(config.url, password, application)


def load_usage(store: UsageStore) -> Mapping[str, CallerUsage]:
    """What is kept of each caller. What cannot be read is told in the log, and left out."""
    found = {}
    for caller, text in store.load():
        try:
            found[caller] = USAGE.validate_json(text)
        except ValidationError as error:
            log.error("the usage of %s cannot be read and begins anew: %s", caller, error)
    return found
