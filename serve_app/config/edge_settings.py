"""What Serve's proxies must know of the ingress' config, to refuse a body before they hold it."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field

from serve_app.config.ingress_config import IngressConfig
from serve_app.config.strict import Positive, Seconds, Strict


class EdgeSettings(Strict):
    """The part of `IngressConfig` that concerns bodies, under the same names. `keys_file` is `keys.file`."""

    max_body_bytes: Positive
    max_total_body_bytes: Positive
    body_timeout_s: Seconds
    keys_file: Annotated[str | None, Field(min_length=1)] = None

    @classmethod
    def of(cls, config: IngressConfig) -> Self:
        """Those of one application."""
        names = ("max_body_bytes", "max_total_body_bytes", "body_timeout_s")
        return cls(**{name: getattr(config, name) for name in names}, keys_file=config.keys.file)


def loosest(found: Sequence[EdgeSettings]) -> EdgeSettings:
    """What holds for every application, as a proxy serves them all; the defaults where there is none.

    Each application enforces its own limits once the body has reached it.
    """
    known = found or [EdgeSettings.of(IngressConfig())]
    files = {one.keys_file for one in known}
    return EdgeSettings(
        max_body_bytes=max(one.max_body_bytes for one in known),
        max_total_body_bytes=max(one.max_total_body_bytes for one in known),
        body_timeout_s=max(one.body_timeout_s for one in known),
        keys_file=files.pop() if len(files) == 1 else None,
    )
