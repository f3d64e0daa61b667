"""`ResultStore`: image files that wait to be fetched by signed links, on any fsspec URL."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from serve_app.config import ResultsConfig
from serve_app.errors import ConfigError, NotFound
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_files import MEDIA_TYPES

STORED_NAME = re.compile(r"/\d+-[0-9a-f]{32}\.[a-z]+$")
"""The names of stored files. Other files in the same folder are left alone."""


class ResultStore:
    """Keeps files up to a maximum age and total size, and deletes the oldest first.

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

    def put(self, image: GeneratedImage) -> str:
        """Store an image; returns the path and query of its link."""
        name = f"{int(self._clock())}-{secrets.token_hex(16)}.{image.format}"
        self._make_room(len(image.content))
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

    def _sign(self, name: str, expires: int) -> str:
        return hmac.new(self._secret, f"{name}:{expires}".encode(), hashlib.sha256).hexdigest()

    def _make_room(self, size: int) -> None:
        """Delete files that are too old, then the oldest until `size` bytes fit."""
        self._files.invalidate_cache()
        entries = [entry for entry in self._files.ls(self._root, detail=True) if STORED_NAME.search(entry["name"])]
        oldest_first = sorted(entries, key=lambda entry: entry["name"])
        total = sum(entry["size"] for entry in oldest_first) + size
        for entry in oldest_first:
            written = int(entry["name"].rpartition("/")[2].partition("-")[0])
            if total <= self._config.max_mb * 2**20 and written >= self._clock() - self._config.max_age_s:
                return
            with suppress(FileNotFoundError):  # another replica has deleted it
                self._files.rm_file(entry["name"])
            total -= entry["size"]


def read_secret(config: ResultsConfig, otherwise: str) -> str:
    """The secret in `results.secret_file`, or `otherwise` where no file is configured; raises ConfigError."""
    if config.secret_file is None:
        return otherwise
    try:
        return Path(config.secret_file).read_text().strip()
    except OSError as error:
        raise ConfigError(f"results.secret_file: {error}") from error
