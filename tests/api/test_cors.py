"""CORS."""

from tests.api.fakes import fake_app


def test_cors_is_closed_unless_configured() -> None:
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed, _ = fake_app()
    assert "access-control-allow-origin" not in closed.options("/txt2img/", headers=headers).headers
    opened, _ = fake_app(cors_origins=["https://a.example"])
    found = opened.options("/txt2img/", headers=headers)
    assert found.headers["access-control-allow-origin"] == "https://a.example"
