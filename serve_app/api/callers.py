"""Who is calling: keys from a file, stored hashed, and what each may do."""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.error_responses import answer
from serve_app.errors import ConfigError, Unauthorized

OPEN_PATHS = ("/healthz", "/readyz")


class Caller(BaseModel):
    """One key: its hash, and its limits. None is no limit.

    `rate` is requests a second and `burst` how many at once; `concurrency` images in flight; `daily_device_seconds` the
    denoiser's time in any 24 hours.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    rate: Annotated[float | None, Field(gt=0)] = None
    burst: Annotated[int, Field(gt=0)] = 10
    concurrency: Annotated[int | None, Field(gt=0)] = None
    daily_device_seconds: Annotated[float | None, Field(gt=0)] = None
    models: tuple[str, ...] | None = None
    priority: int = 0


ANONYMOUS = Caller(name="anyone")


def anonymous_caller(scope: Mapping[str, Any]) -> Caller:
    """A caller without a key: told apart by address, so that one does not stop another's task."""
    client = scope.get("client")
    return Caller(name=f"anyone@{client[0]}") if client else ANONYMOUS


def read_keys(path: Path) -> list[Caller]:
    """The key file, a JSON list of callers; raises ConfigError."""
    try:
        callers = TypeAdapter(list[Caller]).validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        raise ConfigError(f"keys.file: {path}: {error}") from error
    if len({caller.name for caller in callers}) < len(callers) or any(not caller.sha256 for caller in callers):
        raise ConfigError(f"keys.file: {path}: every key needs a name of its own and a sha256")
    return callers


def new_key(name: str) -> tuple[str, str]:
    """A fresh key and its line for the key file; the key itself is nowhere else."""
    key = f"dk-{secrets.token_urlsafe(32)}"
    return key, json.dumps({"name": name, "sha256": hash_key(key)})


def hash_key(key: str) -> str:
    """Keys are random and long, so a plain hash is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_caller(header: str | None, callers: list[Caller]) -> Caller:
    """Whose `Authorization` header this is: `Bearer KEY`, or `Basic` with the name and the key; raises Unauthorized.

    Every key is compared, in constant time.
    """
    kind, _, rest = (header or "").partition(" ")
    name, key = None, rest.strip()
    if kind.lower() == "basic":
        try:
            name, _, key = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    digest = hash_key(key)
    found = [caller for caller in callers if hmac.compare_digest(caller.sha256, digest)]
    if kind.lower() not in ("bearer", "basic") or not found or name not in (None, found[0].name):
        raise Unauthorized
    return found[0]


class AuthMiddleware:
    """ASGI middleware: puts the caller into the scope; with keys, lets nobody else through but to health."""

    def __init__(self, app: ASGIApp, callers: list[Caller] | None) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and self._callers is not None and scope["path"] not in OPEN_PATHS:
            try:
                caller = find_caller(Headers(scope=scope).get("authorization"), self._callers)
            except Unauthorized as error:
                await answer(scope["path"], error)(scope, receive, send)
                return
        else:
            caller = anonymous_caller(scope)
        if isinstance(line := scope.get("log_line"), dict):
            line["key"] = caller.name
        await self._app({**scope, "caller": caller}, receive, send)


def caller_of(scope: Mapping[str, object]) -> Caller:
    """Who sent the request of this scope."""
    caller = scope.get("caller", ANONYMOUS)
    assert isinstance(caller, Caller)
    return caller
