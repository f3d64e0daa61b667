"""Images that wait to be fetched by link: a bounded store on any fsspec URL, and signed links that expire."""

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
from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from serve_app.api.error_responses import ProblemResponse
from serve_app.config import ResultsConfig
from serve_app.errors import ConfigError, NotFound
from serve_app.requests.events import GeneratedImage
from serve_app.requests.request import MEDIA_TYPES

OURS = re.compile(r"/\d+-[0-9a-f]{32}\.[a-z]+$")


class ResultStore:
    """Keeps files up to an age and a total size; the oldest go first.

    Args:
        secret: signs the links; the same in every ingress replica.
        clock: Unix seconds.
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
        """Store the image; the path and query of its link."""
        name = f"{int(self._clock())}-{secrets.token_hex(16)}.{image.format}"
        self._make_room(len(image.content))
        with self._files.open(f"{self._root}/{name}", "wb") as file:
            file.write(image.content)
        expires = int(self._clock() + self._config.max_age_s)
        return f"/v1/results/{name}?expires={expires}&signature={self._sign(name, expires)}"

    def get(self, name: str, expires: int, signature: str) -> tuple[bytes, str]:
        """A file and its media type; raises NotFound for a link that is forged, expired, or whose file has gone."""
        sound = hmac.compare_digest(self._sign(name, expires).encode(), signature.encode())
        kind: Any = name.rpartition(".")[2]
        if not sound or expires < self._clock() or kind not in MEDIA_TYPES:
            raise NotFound("this link has expired, or is none of ours")
        try:
            return self._files.cat_file(f"{self._root}/{name}"), MEDIA_TYPES[kind]
        except FileNotFoundError as error:
            raise NotFound("this image is no longer kept") from error

    def _sign(self, name: str, expires: int) -> str:
        return hmac.new(self._secret, f"{name}:{expires}".encode(), hashlib.sha256).hexdigest()

    def _make_room(self, size: int) -> None:
        self._files.invalidate_cache()
        entries = [entry for entry in self._files.ls(self._root, detail=True) if OURS.search(entry["name"])]
        found = sorted(entries, key=lambda entry: entry["name"])
        total = sum(entry["size"] for entry in found) + size
        for entry in found:
            written = int(entry["name"].rpartition("/")[2].partition("-")[0])
            if total <= self._config.max_mb * 2**20 and written >= self._clock() - self._config.max_age_s:
                return
            with suppress(FileNotFoundError):  # another replica was faster
                self._files.rm_file(entry["name"])
            total -= entry["size"]


def read_secret(config: ResultsConfig) -> str:
    """The configured secret, or a fresh one; raises ConfigError."""
    if config.secret_file is None:
        return secrets.token_hex(32)
    try:
        return Path(config.secret_file).read_text().strip()
    except OSError as error:
        raise ConfigError(f"results.secret_file: {error}") from error


def router(store: ResultStore) -> APIRouter:
    """`GET /v1/results/{name}`."""
    routes = APIRouter(tags=["results"])

    @routes.get(
        "/v1/results/{name}",
        response_class=Response,
        responses={404: {"model": ProblemResponse, "description": "expired, or never ours"}},
    )
    async def fetch(name: str, expires: int, signature: str) -> Response:
        """An image by its signed link."""
        content, media_type = await run_in_threadpool(store.get, name, expires, signature)
        return Response(content, media_type=media_type)

    return routes
