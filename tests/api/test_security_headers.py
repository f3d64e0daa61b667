"""What responses tell browsers and caches, and that nothing of a caller's comes back as HTML."""

import re

import pytest

from serve_app.errors import ContentRefused, GenerationFailed
from tests.api.fakes import fake_app

SCRIPT = "<script>alert(1)</script>"


def test_every_response_forbids_sniffing_framing_and_keeping() -> None:
    client, service = fake_app()
    linked = client.post("/v1/images/generations", json={"prompt": "x", "response_format": "url"})
    answers = [
        linked,
        client.get(linked.json()["data"][0]["url"]),
        client.post("/txt2img/", json={"prompt": "x"}),
        client.post("/v1/generate", json={"prompt": "x"}, headers={"Accept": "text/event-stream"}),
        client.post("/txt2img/", json={}),
        client.get("/nothing"),
        client.get("/healthz"),
    ]
    service.error = RuntimeError("unexpected")
    answers.append(client.post("/txt2img/", json={"prompt": "x"}))
    assert [one.status_code for one in answers] == [200, 200, 200, 200, 422, 404, 200, 500]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in answer.headers


def test_docs_load_from_this_server_alone() -> None:
    client, _ = fake_app()
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    parts = re.findall(r'(?:src|href)="([^"]+)', page.text)
    assert len(parts) == 3
    assert all(part.startswith("/") and client.get(part).status_code == 200 for part in parts)


@pytest.mark.parametrize("path", ["/txt2img/", "/v1/generate", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_errors_are_json_whatever_they_repeat(path: str) -> None:
    client, service = fake_app()
    bodies = [{"prompt": "x", "model": SCRIPT}, {"prompt": [SCRIPT]}, {"prompt": "x", SCRIPT: SCRIPT}, {"seed": SCRIPT}]
    for body in bodies:
        answer = client.post(path, json=body)
        assert answer.headers["content-type"] in ("application/json", "image/png")
    for service.error in (ContentRefused(SCRIPT), GenerationFailed(SCRIPT)):
        assert client.post(path, json={"prompt": "x"}).headers["content-type"] == "application/json"
    for unknown in (f"{path}{SCRIPT}", f"/v1/models/{SCRIPT}", f"/v1/results/{SCRIPT}?expires=1&signature=x"):
        assert client.get(unknown).headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/txt2img/", "/v1/generate", "/v1/images/generations", "/sdapi/v1/txt2img"])
def test_an_error_repeats_little_of_a_long_value_or_name(path: str) -> None:
    client, _ = fake_app()
    long = "z" * 30_000
    for body in ({"prompt": "x", "model": long}, {"prompt": "x", long: 1}, {"prompt": [long]}, {"seed": long}):
        answer = client.post(path, json=body)
        if answer.status_code >= 400:
            assert len(answer.content) < 2000, list(body)


def test_a_long_path_is_neither_repeated_nor_logged_whole() -> None:
    client, service = fake_app()
    long = "z" * 30_000
    answers = [client.delete(f"/v1/generate/{long}"), client.post(f"/v1/presets/{long}", json={}), client.get(long)]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert all(len(answer.content) < 1000 for answer in answers)
    assert all(len(record.path) < 300 for record in service.records)


def test_a_header_cannot_be_injected() -> None:
    client, _ = fake_app()
    for body in ({"seed": "1\r\nX-Evil: 1"}, {"model": "emoji\r\nX-Evil: 1"}, {"format": "png\r\nX-Evil: 1"}):
        answer = client.post("/txt2img/", json={"prompt": "x\r\nX-Evil: 1", **body})
        assert answer.status_code == 422
        assert "x-evil" not in answer.headers
    assert "x-evil" not in client.post("/txt2img/", json={"prompt": "x\r\nX-Evil: 1"}).headers
