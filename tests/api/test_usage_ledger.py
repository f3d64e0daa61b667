"""The rules of counting, with a clock that the test moves."""

from pathlib import Path
from typing import Any

import fakeredis
import pytest

from serve_app.api.usage_ledger import (
    DAY_SECONDS,
    HOLDER_SECONDS,
    LEASE_SECONDS,
    SPENT_SECONDS,
    USAGE,
    Lease,
    UsageLedger,
    UsageReport,
)
from serve_app.api.usage_store import FolderStore, RedisStore, UsageStore, load_usage, open_store
from serve_app.config import CallerLimits, UsageConfig
from serve_app.errors import ConfigError, LimitExceeded


class Clock:
    """Unix time that stands still."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease(name: str, *, images: int = 1, holder: str = "one", caller: str = "bob", **limits: Any) -> Lease:
    return Lease(name, holder, caller, images, CallerLimits.model_validate(limits))


def test_rate_and_burst(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    limits: dict[str, Any] = {"rate": 2.0, "burst": 1}
    ledger.admit(lease("a", **limits))
    with pytest.raises(LimitExceeded, match="at most 2 requests per second"):
        ledger.admit(lease("b", **limits))
    ledger.admit(lease("c", caller="modest", **limits))
    clock.now += 0.5
    ledger.admit(lease("b", **limits))
    clock.now -= 100
    with pytest.raises(LimitExceeded):
        ledger.admit(lease("d", **limits))


def test_concurrency_counts_the_images_of_all_holders(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    ledger.admit(lease("a", images=2, concurrency=3))
    ledger.admit(lease("b", images=1, holder="two", concurrency=3))
    with pytest.raises(LimitExceeded, match="at most 3 images"):
        ledger.admit(lease("c", concurrency=3))
    ledger.end("bob", "b")
    ledger.end("bob", "b")
    ledger.admit(lease("c", concurrency=3))


def test_device_seconds_of_a_day(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    limits: dict[str, Any] = {"daily_device_seconds": 10.0}
    ledger.admit(lease("a", **limits))
    report = UsageReport("replica", 1, device_seconds={"bob": 11.0})
    ledger.take_report(report)
    with pytest.raises(LimitExceeded, match="at most 10 device seconds") as caught:
        ledger.admit(lease("b", **limits))
    clock.now += caught.value.retry_after_s + 1
    assert caught.value.retry_after_s <= DAY_SECONDS + SPENT_SECONDS
    ledger.admit(lease("b", **limits))


def test_a_report_that_is_sent_again_counts_once(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    limits: dict[str, Any] = {"daily_device_seconds": 10.0}
    for _ in range(3):
        ledger.take_report(UsageReport("replica", 1, device_seconds={"bob": 6.0}))
    ledger.admit(lease("a", **limits))
    ledger.take_report(UsageReport("replica", 2, device_seconds={"bob": 6.0}))
    with pytest.raises(LimitExceeded):
        ledger.admit(lease("b", **limits))


def test_a_holder_that_dies_gives_its_images_back(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    ledger.admit(lease("a", concurrency=1))
    clock.now += LEASE_SECONDS - 1
    ledger.take_report(UsageReport("one", held=(lease("a", concurrency=1),)))
    clock.now += LEASE_SECONDS - 1
    ledger.expire()
    with pytest.raises(LimitExceeded):
        ledger.admit(lease("b", holder="two", concurrency=1))
    clock.now += LEASE_SECONDS
    ledger.expire()
    ledger.admit(lease("b", holder="two", concurrency=1))


def test_a_report_ends_what_its_holder_has_no_more_and_keeps_what_it_waits_for(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    ledger.admit(lease("lost", concurrency=2))
    ledger.admit(lease("asked", concurrency=2))
    ledger.take_report(UsageReport("one", pending=frozenset({"asked"})))
    ledger.admit(lease("next", concurrency=2))
    with pytest.raises(LimitExceeded):
        ledger.admit(lease("more", concurrency=2))


def test_what_was_admitted_elsewhere_meanwhile_counts_once(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    limits: dict[str, Any] = {"rate": 1.0, "burst": 3}
    held = lease("a", **limits)
    for _ in range(3):
        ledger.take_report(UsageReport("one", held=(held,)))
    ledger.admit(held)
    ledger.admit(lease("b", **limits))
    ledger.admit(lease("c", **limits))
    with pytest.raises(LimitExceeded):
        ledger.admit(lease("d", **limits))


def test_a_share_is_a_part_of_each_limit_and_never_nothing(clock: Clock) -> None:
    ledger = UsageLedger(0.5, clock)
    for name in "abcde":
        ledger.admit(lease(name, rate=2.0, burst=10))
    with pytest.raises(LimitExceeded):
        ledger.admit(lease("f", rate=2.0, burst=10))
    ledger.admit(lease("g", caller="narrow", concurrency=1))
    with pytest.raises(LimitExceeded):
        ledger.admit(lease("h", caller="narrow", concurrency=1))


def test_callers_that_are_as_new_are_forgotten(clock: Clock) -> None:
    ledger = UsageLedger(clock=clock)
    for number in range(100):
        ledger.admit(lease(f"a{number}", caller=f"anyone@{number}", rate=1.0, burst=5))
        ledger.end(f"anyone@{number}", f"a{number}")
    ledger.expire()
    assert ledger.usage_of("anyone@7") is not None
    clock.now += 2
    assert len(ledger.expire()) == 100
    assert ledger.usage_of("anyone@7") is None


@pytest.fixture(params=["folder", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UsageStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "usage")
    server = fakeredis.FakeServer()
    monkeypatch.setattr("serve_app.api.usage_store.Redis.from_url", lambda *_, **__: fakeredis.FakeRedis(server=server))
    return RedisStore("redis://nowhere", None, "darkroom")


def test_usage_survives_a_restart(store: UsageStore, clock: Clock) -> None:
    caller = "Łukasz / é\nx"
    limits: dict[str, Any] = {"rate": 0.01, "burst": 1, "concurrency": 1, "daily_device_seconds": 5.0}
    assert load_usage(store) == {}
    before = UsageLedger(clock=clock)
    before.admit(lease("a", caller=caller, **limits))
    before.take_report(UsageReport("replica", 1, device_seconds={caller: 4.0}))
    usage = before.usage_of(caller)
    assert usage is not None
    store.save(caller, USAGE.dump_json(usage))
    after = UsageLedger(clock=clock)
    after.load(load_usage(store))
    with pytest.raises(LimitExceeded, match="in flight"):
        after.admit(lease("b", caller=caller, **limits))
    after.end(caller, "a")
    with pytest.raises(LimitExceeded, match="requests per second"):
        after.admit(lease("b", caller=caller, **limits))
    after.take_report(UsageReport("replica", 1, device_seconds={caller: 4.0}))
    clock.now += 200
    after.admit(lease("b", caller=caller, **limits))
    after.end(caller, "b")
    after.take_report(UsageReport("replica", 2, device_seconds={caller: 4.0}))
    with pytest.raises(LimitExceeded, match="device seconds"):
        after.admit(lease("c", caller=caller, **limits))
    store.delete(caller)
    store.delete(caller)
    assert load_usage(store) == {}


def test_a_holder_that_never_reports_after_a_restart_gives_its_images_back(clock: Clock) -> None:
    before, after = UsageLedger(clock=clock), UsageLedger(clock=clock)
    before.admit(lease("a", concurrency=1))
    usage = before.usage_of("bob")
    assert usage is not None
    after.load({"bob": usage})
    clock.now += LEASE_SECONDS + 1
    after.expire()
    after.admit(lease("b", concurrency=1))
    clock.now += HOLDER_SECONDS + LEASE_SECONDS
    after.end("bob", "b")
    after.expire()
    assert after.usage_of("bob") is None


def test_a_password_that_cannot_be_read_is_a_mistake_of_the_config(tmp_path: Path) -> None:
    config = UsageConfig(url="redis://nowhere", password_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"args\.usage\.password_file: .*No such file"):
        open_store(config, "darkroom")


def test_what_cannot_be_read_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = FolderStore(tmp_path)
    store.save("bob", b"{")
    store.save("ann", b"{}")
    assert list(load_usage(store)) == ["ann"]
    assert "bob" in caplog.text
