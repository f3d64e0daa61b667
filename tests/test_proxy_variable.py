"""The variable that guards Serve's proxies: who sets it, and what is said where nobody does."""

import os
from importlib import import_module
from pathlib import Path

import pytest

from serve_app.cli.environment import prepare_environment
from serve_app.config.proxy_variable import PROXY_CALLBACK, PROXY_VARIABLE, warn_unguarded_proxy


def test_the_command_and_the_image_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PROXY_VARIABLE, "RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    prepare_environment(verbose=True)
    assert PROXY_VARIABLE not in os.environ, "another cluster has an environment of its own"
    prepare_environment(own_cluster=True, verbose=True)
    assert os.environ[PROXY_VARIABLE] == PROXY_CALLBACK
    assert f"ENV {PROXY_VARIABLE}={PROXY_CALLBACK}\n" in (Path(__file__).parents[1] / "Dockerfile").read_text()


def test_it_names_a_function_that_serve_can_call() -> None:
    module, _, function = PROXY_CALLBACK.partition(":")
    assert len(getattr(import_module(module), function)()) == 1


def test_without_it_one_line_says_what_is_not_protected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PROXY_VARIABLE, PROXY_CALLBACK)
    warn_unguarded_proxy()
    assert caplog.messages == []
    monkeypatch.delenv(PROXY_VARIABLE)
    warn_unguarded_proxy()
    (line,) = caplog.messages
    assert PROXY_VARIABLE in line
    assert "X-Request-Disconnect-Disabled" in line
