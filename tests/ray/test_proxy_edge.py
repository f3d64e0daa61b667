"""Serve's proxy with our middleware before it: what a caller sends is judged before Serve has read it."""

import json
import socket
import time
from pathlib import Path

import httpx
import pytest

from serve_app.api.keys import new_key
from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.ray.test_serving import SLOW, rows_in_flight, wait_until

ODD = b"\xe9"


def first_line(url: httpx.URL, *head: str) -> str:
    """The status line that is answered while only the head of a request and the first byte of its body are sent."""
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall("\r\n".join(["POST /txt2img/ HTTP/1.1", "Host: x", *head, "", "{"]).encode())
        return connection.recv(64).decode().split("\r\n")[0]


def test_headers_that_serve_obeys_have_no_effect(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"tiny": tiny_model(tiny_sd)}))
    client.post("/txt2img/", json={"prompt": "warm"})
    long = {**SLOW, "width": 512, "height": 512, "num_images": 2}
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/generate", json=long, headers={"X-Request-Disconnect-Disabled": "?1"}, timeout=0.5)
    wait_until(lambda: rows_in_flight("tiny") == 0, seconds=3)
    for name in ("X-Request-ID", "X-Session-ID", "serve_multiplexed_model_id"):
        answer = client.get("/healthz", headers=[(name.encode(), ODD)])
        assert (answer.status_code, bool(answer.headers["x-request-id"])) == (200, True)
    hasty = {"X-Request-Timeout-Seconds": "0.001"}
    assert client.post("/txt2img/", json={"prompt": "x"}, headers=hasty).status_code == 200


def test_the_ingress_config_reaches_the_proxy_and_changes_there(deploy: Deploy, tiny_sd: Path, tmp_path: Path) -> None:
    key, entry = new_key("ann")
    (tmp_path / "keys.json").write_text(f"[{entry}]")
    models = {"tiny": tiny_model(tiny_sd)}
    ingress = {"keys": {"file": str(tmp_path / "keys.json")}, "max_body_bytes": 5000}
    client = deploy(application(models, ingress=ingress))
    mine = {"Authorization": f"Bearer {key}"}
    assert "401" in first_line(client.base_url, "Content-Length: 4000")
    assert "413" in first_line(client.base_url, "Content-Length: 6000", f"Authorization: Bearer {key}")
    assert client.post("/txt2img/", json={"prompt": "x"}, headers=mine).status_code == 200
    assert client.get("/healthz").status_code == 200
    other, entry_of_other = new_key("bob")
    (tmp_path / "keys.json").write_text(json.dumps([json.loads(entry), json.loads(entry_of_other)]))
    time.sleep(1.1)
    assert "413" in first_line(client.base_url, "Content-Length: 6000", f"Authorization: Bearer {other}")
    client = deploy(application(models, ingress={"max_body_bytes": 7000}))
    assert client.post("/txt2img/", content=b" " * 6000).status_code == 422
    assert "413" in first_line(client.base_url, "Content-Length: 8000")
