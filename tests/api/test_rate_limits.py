"""The limits of each key."""

import json
from pathlib import Path

import pytest

from serve_app.api.keys import Caller, new_key
from serve_app.api.rate_limits import RateLimiter
from serve_app.errors import LimitExceeded, UnknownName
from tests.api.fakes import fake_app


def test_a_keys_limits_and_priority_apply_to_its_requests(tmp_path: Path) -> None:
    key, entry = new_key("bob")
    limits = {"concurrency": 1, "rate": 1, "burst": 2, "models": ["emoji"], "priority": 3}
    (tmp_path / "keys.json").write_text(json.dumps([{**json.loads(entry), **limits}]))
    client, service = fake_app(keys={"file": str(tmp_path / "keys.json")})
    headers = {"Authorization": f"Bearer {key}"}
    assert client.post("/txt2img/", json={"prompt": "x", "model": "other"}, headers=headers).status_code == 422
    many = client.post("/v1/generate", json={"prompt": "x", "num_images": 2}, headers=headers)
    assert (many.status_code, many.json()["error"]["code"]) == (429, "limit_exceeded")
    assert many.headers["retry-after"] == "1"
    statuses = [client.post("/txt2img/", json={"prompt": "x"}, headers=headers).status_code for _ in range(4)]
    assert statuses.count(200) == 2, "the burst"
    assert (service.contexts[0].owner, service.contexts[0].priority) == ("bob", 3)


def test_each_limit_over_time() -> None:
    now = [0.0]
    limiter = RateLimiter(clock=lambda: now[0])
    caller = Caller(name="c", rate=2.0, burst=1, concurrency=3, daily_device_seconds=10.0)
    limiter.admit(caller, "m", 2)
    with pytest.raises(LimitExceeded, match="at most 2 requests per second"):
        limiter.admit(caller, "m", 1)
    now[0] += 0.5
    with pytest.raises(LimitExceeded, match="at most 3 images in flight"):
        limiter.admit(caller, "m", 2)
    limiter.release(caller, 2, 11.0)
    with pytest.raises(LimitExceeded, match="at most 10 device seconds per day"):
        limiter.admit(caller, "m", 1)
    now[0] += 24 * 3600 + 1
    limiter.admit(caller, "m", 3)


def test_a_key_may_be_limited_to_some_models() -> None:
    with pytest.raises(UnknownName, match="model: must be one of a for this key"):
        RateLimiter().admit(Caller(name="d", models=("a",)), "m", 1)


def test_one_callers_limits_do_not_touch_another() -> None:
    limiter = RateLimiter(clock=lambda: 0.0)
    greedy, modest = (Caller(name=name, rate=1.0, burst=1) for name in ("greedy", "modest"))
    limiter.admit(greedy, "m", 1)
    with pytest.raises(LimitExceeded):
        limiter.admit(greedy, "m", 1)
    limiter.admit(modest, "m", 1)
