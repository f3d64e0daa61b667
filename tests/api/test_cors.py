"""CORS: which web pages may call, and read what comes back."""

import pytest

from tests.api.fakes import fake_app

PAGE, OTHER = "https://a.example", "https://b.example"
BODY = {"prompt": "x"}


def preflight(origin: str, header: str = "content-type") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": header,
    }


def test_no_page_of_another_origin_may_read_anything_unless_configured() -> None:
    client, _ = fake_app()
    answers = [
        client.options("/txt2img/", headers=preflight(PAGE)),
        client.post("/txt2img/", json=BODY, headers={"Origin": PAGE}),
        client.post("/txt2img/", json={}, headers={"Origin": PAGE}),
        client.get("/sdapi/v1/progress", headers={"Origin": PAGE}),
        client.get("/v1/nothing", headers={"Origin": "null"}),
    ]
    assert [name for one in answers for name in one.headers if name.startswith("access-control")] == []
    assert answers[0].status_code >= 400, "browsers send no JSON where the preflight is refused"


@pytest.mark.parametrize("header", ["content-type", "authorization"])
def test_only_listed_origins_pass_the_preflight(header: str) -> None:
    client, _ = fake_app(cors_origins=[PAGE])
    allowed = client.options("/txt2img/", headers=preflight(PAGE, header))
    refused = client.options("/txt2img/", headers=preflight(OTHER, header))
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, PAGE)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    read = client.post("/txt2img/", json=BODY, headers={"Origin": OTHER})
    assert read.headers.get("access-control-allow-origin") is None


@pytest.mark.parametrize("origins", [[PAGE], ["*"]])
def test_no_browser_sends_its_credentials_along(origins: list[str]) -> None:
    client, _ = fake_app(cors_origins=origins)
    for answer in (
        client.options("/txt2img/", headers=preflight(PAGE)),
        client.post("/txt2img/", json=BODY, headers={"Origin": PAGE, "Cookie": "session=1"}),
    ):
        assert answer.headers["access-control-allow-origin"] == origins[0]
        assert "access-control-allow-credentials" not in answer.headers


def test_a_page_cannot_send_json_without_a_preflight() -> None:
    client, service = fake_app()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        for path in ("/txt2img/", "/v1/generate", "/v1/images/generations", "/sdapi/v1/txt2img"):
            sent = client.post(path, content='{"prompt": "x"}', headers={"Content-Type": kind, "Origin": PAGE})
            assert sent.status_code in (400, 422), (kind, path)
    assert service.requests == []
