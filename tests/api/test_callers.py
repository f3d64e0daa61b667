"""Keys, limits, logs, and what is refused at the door."""

import base64
import json
import logging
from pathlib import Path

import pytest

from serve_app.api.callers import Caller, find_caller, new_key, read_keys
from serve_app.api.rate_limits import Limiter
from serve_app.errors import ConfigError, LimitExceeded, Unauthorized, UnknownName
from tests.api.fakes import fake_app


@pytest.fixture
def keyed(tmp_path: Path) -> tuple[str, str, Path]:
    """A file with two keys: the first may do anything, the second has limits."""
    (first, line), (second, other) = new_key("alice"), new_key("bob")
    limited = {**json.loads(other), "concurrency": 1, "rate": 1, "burst": 2, "models": ["emoji"], "priority": 3}
    file = tmp_path / "keys.json"
    file.write_text(f"[{line}, {json.dumps(limited)}]")
    return first, second, file


def basic(name: str, key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()}


def test_with_keys_on_only_health_answers_without_one(keyed: tuple[str, str, Path]) -> None:
    key, _, file = keyed
    client, _ = fake_app(keys={"file": str(file)})
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    for path in ("/docs", "/openapi.json", "/v1/models", "/sdapi/v1/options", "/v1/presets", "/nothing"):
        assert client.get(path).status_code == 401, path
    refused = client.post("/txt2img/", json={"prompt": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
    assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
    assert client.get("/sdapi/v1/options").headers["www-authenticate"].startswith("Basic")
    for headers in ({"Authorization": f"Bearer {key}"}, basic("alice", key)):
        assert client.post("/txt2img/", json={"prompt": "x"}, headers=headers).status_code == 200
    for headers in (
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Digest {key}"},
        {"Authorization": "Basic %%%"},
        basic("bob", key),
    ):
        assert client.post("/txt2img/", json={"prompt": "x"}, headers=headers).status_code == 401


def test_a_keys_limits_hold_and_its_priority_goes_along(keyed: tuple[str, str, Path]) -> None:
    _, key, file = keyed
    client, service = fake_app(keys={"file": str(file)})
    headers = {"Authorization": f"Bearer {key}"}
    assert client.post("/txt2img/", json={"prompt": "x", "model": "other"}, headers=headers).status_code == 422
    many = client.post("/v1/generate", json={"prompt": "x", "num_images": 2}, headers=headers)
    assert (many.status_code, many.json()["error"]["code"]) == (429, "limit_exceeded")
    assert many.headers["retry-after"] == "1"
    statuses = [client.post("/txt2img/", json={"prompt": "x"}, headers=headers).status_code for _ in range(4)]
    assert statuses.count(200) == 2, "the burst"
    assert (service.contexts[0].owner, service.contexts[0].priority) == ("bob", 3)


def test_limits_by_the_clock() -> None:
    now = [0.0]
    limiter = Limiter(clock=lambda: now[0])
    caller = Caller(name="c", rate=2.0, burst=1, concurrency=3, daily_device_seconds=10.0)
    limiter.admit(caller, "m", 2)
    with pytest.raises(LimitExceeded, match="at most 2 requests a second"):
        limiter.admit(caller, "m", 1)
    now[0] += 0.5
    with pytest.raises(LimitExceeded, match="at most 3 images at once"):
        limiter.admit(caller, "m", 2)
    limiter.release(caller, 2, 11.0)
    with pytest.raises(LimitExceeded, match="at most 10 device seconds a day"):
        limiter.admit(caller, "m", 1)
    now[0] += 24 * 3600 + 1
    limiter.admit(caller, "m", 3)
    with pytest.raises(UnknownName):
        limiter.admit(Caller(name="d", models=("a",)), "m", 1)


def test_one_callers_limits_do_not_touch_another() -> None:
    limiter = Limiter(clock=lambda: 0.0)
    greedy, modest = (Caller(name=name, rate=1.0, burst=1) for name in ("greedy", "modest"))
    limiter.admit(greedy, "m", 1)
    with pytest.raises(LimitExceeded):
        limiter.admit(greedy, "m", 1)
    limiter.admit(modest, "m", 1)


def test_key_files_that_are_wrong_stop_the_start(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    line = new_key("a")[1]
    for text in ("", "{}", f"[{line}, {line}]", '[{"name": "a"}]', '[{"name": "a", "sha256": "short"}]'):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"keys\.file"):
            read_keys(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(tmp_path / "none.json")


def test_a_key_is_found_by_its_hash() -> None:
    key, line = new_key("a")
    assert key not in line
    caller = Caller.model_validate_json(line)
    assert find_caller(f"bearer {key}", [caller]) == caller
    with pytest.raises(Unauthorized):
        find_caller(None, [caller])


def test_every_request_is_a_line_of_json_without_its_key(
    keyed: tuple[str, str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    key, _, file = keyed
    client, _ = fake_app(keys={"file": str(file)})
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "abc-1"}
    with caplog.at_level(logging.INFO, "darkroom.access"):
        answer = client.post("/txt2img/", json={"prompt": "secret plans", "seed": 4}, headers=headers)
        client.get("/v1/models", headers={"X-Request-ID": "no good\nid"})
    assert answer.headers["x-request-id"] == "abc-1"
    first, second = (json.loads(record.message) for record in caplog.records if record.name == "darkroom.access")
    assert (first["key"], first["seed"], first["status"], first["path"]) == ("alice", "4", 200, "/txt2img/")
    assert second["status"] == 401
    assert len(second["request_id"]) == 32
    assert key not in caplog.text
    assert "secret plans" not in caplog.text


def test_cors_is_closed_unless_configured() -> None:
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed, _ = fake_app()
    assert "access-control-allow-origin" not in closed.options("/txt2img/", headers=headers).headers
    opened, _ = fake_app(ingress={"cors_origins": ["https://a.example"]})
    found = opened.options("/txt2img/", headers=headers)
    assert found.headers["access-control-allow-origin"] == "https://a.example"


def test_prompts_are_logged_only_where_configured(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = fake_app(ingress={"log_prompts": True})
    with caplog.at_level(logging.INFO, "darkroom.prompts"):
        assert client.post("/txt2img/", json={"prompt": "a cat", "seed": 4}).status_code == 200
    (line,) = (json.loads(record.message) for record in caplog.records if record.name == "darkroom.prompts")
    assert (line["prompt"], line["seeds"], line["model"]) == ("a cat", [4], "emoji")
