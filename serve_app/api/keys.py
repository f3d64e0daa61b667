"""API keys: what each key may do, how the key file is read, and which key a request holds."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from serve_app.config import CallerLimits
from serve_app.errors import ConfigError, Unauthorized
from serve_app.requests.params import Priority, limit_of


class Caller(CallerLimits):
    """One entry of the key file: the hash of a key, and what its owner may do."""

    name: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    priority: Priority = "interactive"

    @property
    def limits(self) -> CallerLimits:
        """The limits alone."""
        return CallerLimits(**{name: getattr(self, name) for name in CallerLimits.model_fields})


ANONYMOUS = Caller(name="anyone")
"""A caller without a key whose address is unknown."""


def read_keys(path: Path) -> list[Caller]:
    """Read the key file, a JSON list of callers; raises ConfigError."""
    try:
        callers = TypeAdapter(list[Caller]).validate_json(path.read_text())
    except OSError as error:
        raise ConfigError(f"keys.file: {path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise ConfigError("\n".join(f"keys.file: {path}: {line}" for line in _find_mistakes(error))) from None
    if len({caller.name for caller in callers}) < len(callers):
        raise ConfigError(f"keys.file: {path}: every key must have a different name")
    if any(not caller.sha256 for caller in callers):
        raise ConfigError(f"keys.file: {path}: every key must have a sha256")
    return callers


def _find_mistakes(error: ValidationError) -> Iterator[str]:
    """A line for each mistake in a key file, without its values: a key may stand in the wrong place."""
    for one in error.errors(include_input=False, include_url=False):
        place = ".".join(str(part) for part in one["loc"]) or "the file"
        unknown = one["type"] == "extra_forbidden"
        limit = limit_of(one["type"], one["msg"], one.get("ctx", {}))
        yield f"{place}: {'is not a key of an entry' if unknown else limit}"


def new_key(name: str) -> tuple[str, str]:
    """Make a key; returns the key and its entry for the key file. Only the entry's hash is ever stored."""
    key = f"dk-{secrets.token_urlsafe(32)}"
    return key, json.dumps({"name": name, "sha256": hash_key(key)})


def hash_key(key: str) -> str:
    """The SHA-256 of a key, in hex. Keys are long and random, so they need no salt and no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def find_caller(header: str | None, callers: Sequence[Caller]) -> Caller:
    """The caller whose key an `Authorization` header holds; raises Unauthorized.

    `Bearer KEY` and `Basic` (name and key) are accepted. Every key is compared, each in constant time.
    """
    scheme, _, credentials = (header or "").partition(" ")
    name, key = None, credentials.strip()
    if scheme.lower() == "basic":
        try:
            name, _, key = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:  # not base64, not ASCII or not UTF-8
            key = ""
    digest = hash_key(key)
    found = [caller for caller in callers if hmac.compare_digest(caller.sha256, digest)]
    if scheme.lower() not in ("bearer", "basic") or not found or name not in (None, found[0].name):
        raise Unauthorized
    return found[0]
