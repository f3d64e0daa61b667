"""Authentication: finds the caller of each request, and refuses requests without a valid key where keys are on."""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.api_paths import route_path
from serve_app.api.error_responses import error_response
from serve_app.api.key_file import KeyFile
from serve_app.api.keys import ANONYMOUS, Caller, find_caller
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.config import CallerLimits
from serve_app.errors import Unauthorized

OPEN_PATHS = ("/healthz", "/readyz")
"""Paths that answer without a key."""
SIGNED_PATHS = "/v1/results/"
"""Paths below this one answer without a key, too: their links are signed."""
MAX_HOST_CHARACTERS = 64


class AuthMiddleware:
    """ASGI middleware that puts the `Caller` into the scope.

    Args:
        keys: the key file; None where keys are off, and then everybody may call.
        anonymous: the limits of each address without a key.
    """

    def __init__(self, app: ASGIApp, keys: KeyFile | None, anonymous: CallerLimits) -> None:
        self._app = app
        self._keys = keys
        self._anonymous = anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or call the application with the caller in its scope."""
        caller = anonymous_caller(scope, self._anonymous)
        if scope["type"] == "http" and self._keys is not None:
            try:
                caller = find_caller(Headers(scope=scope).get("authorization"), await self._keys.callers())
            except Unauthorized as error:
                path = route_path(scope)
                if path not in OPEN_PATHS and not path.startswith(SIGNED_PATHS):
                    await error_response(path, error)(scope, receive, send)
                    return
        record = scope.get("access_record")
        if isinstance(record, AccessRecord):
            record.key = caller.name
        await self._app({**scope, "caller": caller}, receive, send)


def anonymous_caller(scope: Mapping[str, Any], limits: CallerLimits) -> Caller:
    """The caller of a request without a key. Its name holds the client's address, so it cannot stop others' tasks."""
    client = scope.get("client")
    name = f"{ANONYMOUS.name}@{network_of(client[0])}" if client else ANONYMOUS.name
    return Caller(name=name, **limits.model_dump())


def network_of(host: str) -> str:
    """What one person has: an IPv4 address, or the /64 of an IPv6 address. Other names as they are, cut."""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:MAX_HOST_CHARACTERS]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(ip_network((address, 64), strict=False))
    return host


def caller_of(scope: Mapping[str, object]) -> Caller:
    """The caller that `AuthMiddleware` put into this scope."""
    caller = scope.get("caller", ANONYMOUS)
    assert isinstance(caller, Caller)
    return caller
