"""What the ingress publishes for the proxies, and how long it counts."""

import time

import pytest

from serve_app.config import EdgeSettings, IngressConfig
from serve_app.deployments.published_settings import STALE_SECONDS, parse_published

SETTINGS = EdgeSettings.of(IngressConfig())


def test_settings_count_until_their_application_has_been_silent_for_a_while() -> None:
    now = time.time()
    content = f"{now}\n{SETTINGS.model_dump_json()}".encode()
    assert parse_published(content, now + 1) == [SETTINGS]
    assert parse_published(content, now + STALE_SECONDS + 1) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"9e99\n{}", b"9e99\nnothing"])
def test_what_cannot_be_read_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (float's, pydantic's)
        parse_published(content, time.time())
