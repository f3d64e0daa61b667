"""The usage actor's class, without Ray: what it does where its store fails."""

import logging
from pathlib import Path

import pytest

from serve_app.api.usage_ledger import Lease
from serve_app.api.usage_store import FolderStore, load_usage
from serve_app.config import UsageConfig
from serve_app.config.caller_limits import CallerLimits
from serve_app.deployments.usage_actor import UsageActor


def lease(name: str) -> Lease:
    return Lease(name, "holder", "bob", 1, CallerLimits(rate=0.001, burst=2))


def test_usage_that_cannot_be_read_now_is_not_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = UsageConfig(url=f"file://{tmp_path}/usage")
    UsageActor(config, "app").admit(lease("first"))
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert len(kept) == 1
    with monkeypatch.context() as broken:
        broken.setattr(FolderStore, "load", lambda _: (_ for _ in ()).throw(OSError("away")))
        with pytest.raises(OSError, match="away"):
            UsageActor(config, "app")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == kept
    assert load_usage(FolderStore(tmp_path / "usage" / "app"))["bob"].leases.keys() == {"first"}


def test_two_applications_share_a_folder(tmp_path: Path) -> None:
    config = UsageConfig(url=f"file://{tmp_path}/usage")
    UsageActor(config, "one").admit(lease("first"))
    other = UsageActor(config, "two")
    other.admit(lease("a")), other.admit(lease("b"))
    assert load_usage(FolderStore(tmp_path / "usage" / "one"))["bob"].leases.keys() == {"first"}


def test_what_cannot_be_stored_is_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    actor = UsageActor(UsageConfig(url=f"file://{tmp_path}/usage"), "app")
    with monkeypatch.context() as broken, caplog.at_level(logging.ERROR):
        broken.setattr(FolderStore, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
        actor.admit(lease("first"))
    assert "cannot be stored" in caplog.text
    actor.admit(lease("second"))
    assert load_usage(FolderStore(tmp_path / "usage" / "app"))["bob"].leases.keys() == {"first", "second"}
