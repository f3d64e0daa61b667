"""`ResultStore`: image files that wait to be fetched by signed links, on any fsspec URL."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fsspec

from serve_app.config import ResultsConfig
from serve_app.errors import ConfigError, LimitExceeded, NotFound
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_files import MEDIA_TYPES

STORED_NAME = re.compile(r"(?P<owner>[0-9a-f]{16})-(?P<written>\d+)-[0-9a-f]{32}\.[a-z]+")
"""The names of stored files. Other files in the same folder are left alone."""


@dataclass(frozen=True)
class StoredFile:
    """A stored file: its path, its owner's hash, when it was written (Unix time in seconds), and its bytes."""

    path: str
    owner: str
    written: int
    size: int


class ResultStore:
    """Keeps files up to a maximum age, a total size for each caller, and one for all callers together.

    A caller's oldest files make room for its new ones. No caller's file makes room for another caller's.

    Args:
        secret: signs the links; it must be the same in every ingress replica.
        clock: Unix time in seconds.
    """

    def __init__(self, config: ResultsConfig, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._secret = secret
        self._clock = clock
        try:
            self._files, self._root = fsspec.core.url_to_fs(config.url)
            self._files.makedirs(self._root, exist_ok=True)
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(f"results.url: {config.url} cannot be written to ({error})") from error

    def put(self, image: GeneratedImage, owner: str) -> str:
        """Store an image of a caller; returns the path and query of its link.

        Raises:
            LimitExceeded: other callers' images leave no room.
        """
        hashed = hashlib.sha256(owner.encode()).hexdigest()[:16]
        name = f"{hashed}-{int(self._clock())}-{secrets.token_hex(16)}.{image.format}"
        self._make_room(hashed, len(image.content))
        with self._files.open(f"{self._root}/{name}", "wb") as file:
            file.write(image.content)
        expires = int(self._clock() + self._config.max_age_s)
        return f"/v1/results/{name}?expires={expires}&signature={self._sign(name, expires)}"

    def get(self, name: str, expires: int, signature: str) -> tuple[bytes, str]:
        """A file and its media type; raises NotFound if the link is forged or expired, or the file is deleted."""
        valid = hmac.compare_digest(self._sign(name, expires).encode(), signature.encode())
        extension: Any = name.rpartition(".")[2]
        if not valid or expires < self._clock() or extension not in MEDIA_TYPES:
            raise NotFound("this link has expired, or its signature is wrong")
        try:
            return self._files.cat_file(f"{self._root}/{name}"), MEDIA_TYPES[extension]
        except FileNotFoundError as error:
            raise NotFound("this image has been deleted") from error

    def sweep(self) -> list[StoredFile]:
        """Delete the files that are too old; returns those that are left, the oldest first."""
        self._files.invalidate_cache()
        found = [self._describe(entry) for entry in self._files.ls(self._root, detail=True)]
        stored = sorted((one for one in found if one is not None), key=lambda one: (one.written, one.path))
        oldest = self._clock() - self._config.max_age_s
        for one in stored:
            if one.written < oldest:
                self._delete(one)
        return [one for one in stored if one.written >= oldest]

    def _make_room(self, owner: str, size: int) -> None:
        """Delete what is too old, then the owner's oldest until `size` bytes fit."""
        stored = self.sweep()
        total = sum(one.size for one in stored) + size
        own = sum(one.size for one in stored if one.owner == owner) + size
        for one in (one for one in stored if one.owner == owner):
            if total <= self._config.max_mb * 2**20 and own <= self._config.max_mb_per_caller * 2**20:
                return
            self._delete(one)
            total, own = total - one.size, own - one.size
        if total > self._config.max_mb * 2**20:
            raise LimitExceeded("the store of results is full: ask for b64_json", self._config.max_age_s)

    def _describe(self, entry: dict[str, Any]) -> StoredFile | None:
        path = str(entry["name"])
        match = STORED_NAME.fullmatch(path.rpartition("/")[2])
        return StoredFile(path, match["owner"], int(match["written"]), entry["size"]) if match else None

    def _delete(self, one: StoredFile) -> None:
        with suppress(FileNotFoundError):  # another replica has deleted it
            self._files.rm_file(one.path)

    def _sign(self, name: str, expires: int) -> str:
        return hmac.new(self._secret, f"{name}:{expires}".encode(), hashlib.sha256).hexdigest()
