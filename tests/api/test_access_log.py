"""The access log: one line for each request, with the final status and the id that the client got."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from serve_app.api.app import create_app
from serve_app.api.keys import new_key
from tests.api.fakes import CONFIG, FakeService, fake_app

Receive = Callable[[], Awaitable[Message]]


@pytest.fixture(autouse=True)
def access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "darkroom.access")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.message) for record in caplog.records if record.name == "darkroom.access"]


async def call(client: TestClient, receive: Receive) -> list[Message]:
    """Call the application as a server does that re-raises nothing; returns what it sent."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/txt2img/",
        "raw_path": b"/txt2img/",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("testclient", 1),
    }
    with suppress(RuntimeError):
        await client.app(scope, receive, send)
    return sent


def test_a_line_has_the_key_and_the_seed_but_no_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, entry = new_key("alice")
    (tmp_path / "keys.json").write_text(f"[{entry}]")
    client, _ = fake_app(keys={"file": str(tmp_path / "keys.json")})
    headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "abc-1"}
    answer = client.post("/txt2img/", json={"prompt": "secret plans", "seed": 4}, headers=headers)
    client.get("/v1/models", headers={"X-Request-ID": "no good\nid"})
    assert answer.headers["x-request-id"] == "abc-1"
    first, second = lines(caplog)
    assert (first["key"], first["seed"], first["status"], first["path"]) == ("alice", "4", 200, "/txt2img/")
    assert (second["status"], second["error"]) == (401, "unauthorized")
    assert len(second["request_id"]) == 32
    assert key not in caplog.text
    assert "secret plans" not in caplog.text


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/v1/generate", {"code", "message", "field", "value", "limit"}),
        ("/v1/images/generations", {"message", "type", "param", "code"}),
        ("/sdapi/v1/txt2img", {"error", "detail", "body", "errors"}),
    ],
)
def test_a_bug_in_a_handler_is_a_500_with_its_request_id(
    path: str, keys: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    client, service = fake_app()
    service.error = KeyError("a bug")
    answer = client.post(path, json={"prompt": "x"}, headers={"X-Request-ID": "abc-2"})
    assert answer.status_code == 500
    assert answer.headers.get_list("x-request-id") == ["abc-2"]
    body = answer.json()
    assert set(body if "detail" in body else body["error"]) == keys
    assert "a bug" not in answer.text
    (line,) = lines(caplog)
    assert (line["request_id"], line["status"], line["error"]) == ("abc-2", 500, "internal_error")


def test_a_bug_in_middleware_is_a_500_with_its_request_id(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = fake_app()

    async def receive() -> Message:
        raise RuntimeError("a bug under the body limit, which reads first")

    start, *_ = asyncio.run(call(client, receive))
    (line,) = lines(caplog)
    assert (start["status"], line["status"]) == (500, 500)
    assert (b"x-request-id", line["request_id"].encode()) in start["headers"]


def test_a_client_that_disconnects_within_its_body_is_499(caplog: pytest.LogCaptureFixture) -> None:
    client, service = fake_app()
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"prompt": "x"}', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    assert asyncio.run(call(client, receive)) == []
    assert service.requests == []
    assert lines(caplog)[0]["status"] == 499


def test_a_client_that_disconnects_before_its_answer_is_499(caplog: pytest.LogCaptureFixture) -> None:
    client, service = fake_app()
    service.delay_s = 60

    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"prompt": "x"}'}

    async def disconnect() -> None:
        request = asyncio.create_task(call(client, receive))
        while not service.requests:
            await asyncio.sleep(0.01)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    asyncio.run(disconnect())
    assert service.closed == 1
    assert lines(caplog)[0]["status"] == 499
    assert [record.status for record in service.records] == [499]


def test_behind_a_server_that_sends_request_ids_its_id_is_logged_and_not_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = TestClient(create_app(FakeService(), CONFIG, server_sends_request_id=True))
    for request_id in ("abc-3", "an id, as odd as it may be"):
        answer = client.get("/healthz", headers={"X-Request-ID": request_id})
        assert "x-request-id" not in answer.headers
        assert lines(caplog)[-1]["request_id"] == request_id


def test_prompts_are_logged_only_where_configured(caplog: pytest.LogCaptureFixture) -> None:
    client, _ = fake_app(logs={"prompts": True})
    with caplog.at_level(logging.INFO, "darkroom.prompts"):
        assert client.post("/txt2img/", json={"prompt": "a cat", "seed": 4}).status_code == 200
    (line,) = (json.loads(record.message) for record in caplog.records if record.name == "darkroom.prompts")
    assert (line["prompt"], line["seeds"], line["model"]) == ("a cat", [4], "emoji")
