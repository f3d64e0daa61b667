"""A deployment's `user_config`: the first must be sound, and a later mistake keeps the earlier one."""

import logging

import pytest

from serve_app.config import ModelConfig
from serve_app.deployments.live_config import LiveConfig
from serve_app.errors import ConfigError, NotReady


def test_the_first_config_must_be_sound() -> None:
    live = LiveConfig("model-sd15", ModelConfig)
    with pytest.raises(NotReady, match=r"deployments.model-sd15.user_config: must be given"):
        _ = live.current
    with pytest.raises(ConfigError) as caught:
        live.read({"dtpe": "float16"})
    assert str(caught.value).splitlines() == [
        "deployments.model-sd15.user_config.dtpe: is not a key; did you mean dtype?",
        "deployments.model-sd15.user_config.source: must be given",
    ]
    with pytest.raises(ConfigError):
        live.refuse(caught.value)


def test_a_later_mistake_keeps_the_earlier_config_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    live = LiveConfig("model-sd15", ModelConfig)
    first = live.read({"source": "builtin:emoji"})
    live.accept(first)
    with caplog.at_level(logging.ERROR, "darkroom.config"), pytest.raises(ConfigError) as caught:
        live.read({"source": ""})
    live.refuse(caught.value)
    assert live.current is first
    assert "user_config.source: must have at least 1 character, got ''" in live.refusal
    assert [record.getMessage() for record in caplog.records if live.refusal in record.getMessage()]
    live.accept(first)
    assert live.refusal == ""
