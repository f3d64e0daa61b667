"""Limits of what bodies hold: JSON's depth and number of values, a form's fields, counted before the body is parsed.

32 MB of empty lists become gigabytes of objects, and 30 MB of `&` take 10 s. Counting takes a fraction of a second.
"""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.api_paths import route_path
from serve_app.api.error_responses import error_response
from serve_app.errors import UnreadableBody

MAX_VALUES = 10_000
"""The most values, keys included, of a body. The largest useful request has a few hundred."""
MAX_DEPTH = 32
"""How deep objects and lists may nest."""
MAX_FIELDS = 1000
"""The most fields of a form, as Starlette has it for multipart forms."""

NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class ParseLimitMiddleware:
    """ASGI middleware that answers with UnreadableBody where a body holds too much to parse."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, or call the application with the body."""
        kind = Headers(scope=scope).get("content-type", "") if scope["type"] == "http" else ""
        check = check_of(kind)
        if check is None:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body", False):
            messages.append(await receive())
        try:
            check(b"".join(message.get("body", b"") for message in messages))
        except UnreadableBody as error:
            await error_response(route_path(scope), error)(scope, receive, send)
            return
        messages.reverse()

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, receive_again, send)


def check_form(body: bytes) -> None:
    """Refuse a form with too many fields; multipart forms are limited by their parser. Raises UnreadableBody."""
    if (fields := body.count(b"&")) > MAX_FIELDS:
        raise UnreadableBody("body", f"{fields} fields", f"must be a form of at most {MAX_FIELDS} fields")


def check_json(body: bytes) -> None:
    """Refuse a body with too many values, or with brackets too deep in brackets. Raises UnreadableBody.

    What stands in strings does not count, and strings are skipped: 20 MB of base64 take a millisecond.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    between, strings = read_between_strings(body)
    values = max(strings, sum(map(between.count, (b",", b":", b"[", b"{"))))  # each but the first follows one of these
    if values > MAX_VALUES:
        raise UnreadableBody("body", f"about {values} values", f"must be JSON of at most {MAX_VALUES} keys and values")
    if (depth := measure_depth(between)) > MAX_DEPTH:
        raise UnreadableBody("body", f"{depth} levels", f"must be JSON of at most {MAX_DEPTH} levels")


def read_between_strings(body: bytes) -> tuple[bytes, int]:
    """What stands outside of strings, and the number of strings. It ends where there are more than `MAX_VALUES`."""
    pieces: list[bytes] = []
    position = 0
    while (start := body.find(b'"', position)) >= 0 and len(pieces) <= MAX_VALUES:
        pieces.append(body[position:start])
        end = body.find(b'"', start + 1)
        position = end + 1 if end >= 0 else len(body)
    return b"".join((*pieces, body[position:])), len(pieces)


def measure_depth(body: bytes) -> int:
    """How deep the brackets of a body without strings nest."""
    depth = deepest = 0
    for bracket in body.translate(None, NOT_BRACKETS)[: 2 * MAX_VALUES]:
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def check_of(content_type: str) -> Callable[[bytes], None] | None:
    """What is checked of bodies of this type. Its parameters, behind the semicolon, do not matter to any parser."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        return check_form
    return check_json if media_type.endswith(("/json", "+json")) else None
