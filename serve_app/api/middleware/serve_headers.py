"""Request headers that Ray Serve itself reads. What a caller writes into them never reaches Serve."""

from collections.abc import Iterable

RawHeader = tuple[bytes, bytes]

SERVE_HEADERS = frozenset(
    {
        b"x-request-disconnect-disabled",
        b"x-request-timeout-seconds",
        b"x-session-id",
        b"serve-multiplexed-model-id",
    }
)
"""Headers that change how Serve treats a request: a caller that hangs up would keep its rows, or choose a replica."""
DECODED_HEADERS = frozenset({b"x-request-id", b"traceparent", b"tracestate"})
"""Headers that Serve decodes as UTF-8, and fails on other bytes."""
MAX_REQUEST_ID_BYTES = 128


def without_serve_headers(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """The headers that Serve may see. Of several request ids the first usable one stays.

    Serve takes `_` for `-` in names. Where no request id is left, Serve makes one.
    """
    kept: list[RawHeader] = []
    has_id = False
    for name, value in headers:
        plain = name.lower().replace(b"_", b"-")
        if plain in SERVE_HEADERS or not name.isascii():
            continue
        if plain in DECODED_HEADERS and not _is_printable(value):
            continue
        if plain == b"x-request-id":
            if has_id or not 0 < len(value) <= MAX_REQUEST_ID_BYTES:
                continue
            has_id = True
        kept.append((name, value))
    return kept


def _is_printable(value: bytes) -> bool:
    return value.isascii() and value.decode("ascii").isprintable()
