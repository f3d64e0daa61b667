"""Large images stop nobody: while they are uploaded to every route that takes one, `/healthz` answers at once.

The routes are those of the OpenAPI document, so that a new one is covered.
"""

import base64
import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.requests.test_image_files import claim_size

SIDE = 4096
FREEZE_SECONDS = 1.0
NEEDED: dict[str, Any] = {"prompt": "x", "upscaling_resize": 1.0}
"""Fields of some routes that must be given, or whose default is too large here."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-m", "tests.api.fake_server", str(port)], cwd=root) as server:
        try:
            yield wait_until_up(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def wait_until_up(url: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return url
    raise AssertionError("the server does not start")


@pytest.fixture(scope="module")
def large_png() -> bytes:
    """About 12 MB: noise of two bits a channel, and a transparent part."""
    noise = np.random.default_rng(0).integers(0, 4, (SIDE, SIDE, 4), np.uint8) * 64
    noise[..., 3] = 255
    noise[: SIDE // 2, :, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def image_fields(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, media type and image fields of every operation that takes images."""
    for path, operations in document["paths"].items():
        for media, content in operations.get("post", {}).get("requestBody", {}).get("content", {}).items():
            properties = fields_of(content["schema"], document)
            found = {
                name: kind
                for name, about in properties.items()
                if ("image" in name or "mask" in name) and (kind := text_kind(about)) is not None
            }
            if found:
                yield path, media, {"images": found, "others": set(properties)}


def fields_of(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name].get("properties", {}) if name else {}


def text_kind(about: dict[str, Any]) -> str | None:
    """`string` or `array` where a field is text or a list of texts."""
    kinds = [about, *about.get("anyOf", [])]
    if any(one.get("type") == "array" and one["items"].get("type") == "string" for one in kinds):
        return "array"
    return "string" if any(one.get("type") == "string" for one in kinds) else None


def upload(url: str, path: str, media: str, fields: dict[str, Any], content: bytes) -> httpx.Response:
    needed = {name: value for name, value in NEEDED.items() if name in fields["others"] or media != "application/json"}
    if media == "application/json":
        text = base64.b64encode(content).decode()
        images = {name: [text] if kind == "array" else text for name, kind in fields["images"].items()}
        return httpx.post(url + path, json={**needed, **images}, timeout=120)
    files = dict.fromkeys(fields["images"], ("x.png", content, "image/png"))
    return httpx.post(url + path, files=files, data=needed, timeout=120)


def test_every_route_refuses_an_image_of_too_many_pixels_before_it_decodes_it(url: str) -> None:
    bomb = claim_size(SIDE, SIDE + 1)
    for path, media, fields in image_fields(httpx.get(f"{url}/openapi.json").json()):
        answer = upload(url, path, media, fields, bomb)
        assert answer.status_code in (400, 422), path
        assert f"must have at most {SIDE * SIDE} pixels" in answer.text, path


def test_healthz_answers_while_every_route_reads_a_large_image(url: str, large_png: bytes) -> None:
    routes = list(image_fields(httpx.get(f"{url}/openapi.json").json()))
    assert len(routes) >= 7
    slowest, stop = [0.0], threading.Event()

    def watch() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                began = time.monotonic()
                assert client.get(f"{url}/healthz").status_code == 200
                slowest.append(time.monotonic() - began)
                time.sleep(0.01)

    watching = threading.Thread(target=watch)
    watching.start()
    found: dict[str, tuple[int, float]] = {}
    for path, media, fields in routes:
        before = len(slowest)
        answer = upload(url, path, media, fields, large_png)
        found[path] = answer.status_code, max(slowest[before:], default=0.0)
    stop.set()
    watching.join()
    assert {path: status for path, (status, _) in found.items() if status != 200} == {}
    assert {path: seconds for path, (_, seconds) in found.items() if seconds > FREEZE_SECONDS} == {}, found
