"""Names are looked up and images decoded: nothing that a caller sends is opened or fetched."""

import socket
from typing import Any

import pytest

from tests.api.fakes import fake_app

PATHS = ("../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "%2e%2e%2fetc%2fpasswd", "file:///etc/passwd")
URLS = ("http://169.254.169.254/latest/meta-data/", "https://a.example/x.png", "s3://bucket/x.png", "memory://x")


def refuse_to_connect(*_: Any) -> None:
    raise AssertionError("a request opened a connection")


def test_nothing_that_is_sent_becomes_a_path_or_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    client, service = fake_app()
    monkeypatch.setattr(socket.socket, "connect", refuse_to_connect)
    for text in (*PATHS, *URLS):
        bodies: dict[str, list[dict[str, Any]]] = {
            "/txt2img/": [{"image": text}, {"mask": text}, {"model": text}, {"loras": [{"name": text}]}],
            "/v1/generate": [{"image": text}, {"model": text}, {"sampler": text}],
            "/v1/images/generations": [{"model": text}, {"output_format": text}],
            "/sdapi/v1/txt2img": [{"sampler_name": text}, {"override_settings": {"sd_model_checkpoint": text}}],
            "/sdapi/v1/img2img": [{"init_images": [text]}],
            "/sdapi/v1/options": [{"sd_model_checkpoint": text}],
            "/sdapi/v1/png-info": [{"image": text}],
            "/sdapi/v1/extra-single-image": [{"image": text}],
        }
        for path, parts in bodies.items():
            for part in parts:
                answer = client.post(path, json={"prompt": "x", **part})
                assert 400 <= answer.status_code < 500, (path, part)
        for path in (f"/v1/results/{text}?expires=99999999999&signature=x", f"/v1/models/{text}"):
            assert client.get(path).status_code == 404, path
        assert client.post(f"/v1/presets/{text}", json={}).status_code == 404
        assert client.get(f"/static-offline-docs/{text}").status_code == 404
    assert service.requests == []
