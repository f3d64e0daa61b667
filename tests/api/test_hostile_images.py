"""Image files with metadata that is broken, hostile or too much, sent to each route that takes an image."""

import base64
import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.api.fakes import fake_app
from tests.api.hostile import is_problem
from tests.requests.test_image_metadata import BROKEN, TOO_MUCH, chunk, png_with

SLOW = {
    "spaces": png_with(chunk(b"tEXt", b"parameters\0Steps: " + b" " * 60_000 + b"a")),
    "backslashes": png_with(chunk(b"tEXt", b'parameters\0Steps: 1, a: "' + b"\\" * 60_000)),
}
FILES = BROKEN | SLOW | {name: content for name, (content, _) in TOO_MUCH.items()}
FIELDS = {
    "/txt2img/": "image",
    "/sdapi/v1/img2img": "init_images",
    "/sdapi/v1/png-info": "image",
    "/sdapi/v1/extra-single-image": "image",
    "/v1/images/edits": "image",
    "/v1/images/variations": "image",
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with fake_app(max_body_bytes=32 * 1024 * 1024)[0] as client:
        yield client


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("path", FIELDS)
def test_each_file_is_read_or_refused_by_name_and_soon(path: str, name: str, client: TestClient) -> None:
    content, field = FILES[name], FIELDS[path]
    began = time.monotonic()
    if "/images/" in path:
        response = client.post(path, files={field: ("a", content)}, data={"prompt": "a cat"})
    else:
        encoded = base64.b64encode(content).decode()
        body = {"prompt": "a cat", field: [encoded] if field == "init_images" else encoded}
        response = client.post(path, json=body if path != "/sdapi/v1/png-info" else {field: encoded})
    assert time.monotonic() - began < 5
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert is_problem(path, response.json())
        assert f"{field}: must " in response.text
