"""Presets and styles are measured as they grow, before their text is built."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.api.fakes import fake_app
from tests.api.hostile import IMAGE

PRESETS: dict[str, Any] = {
    "twice": {"prompt": "{x} {x}"},
    "same": {"prompt": "{x}"},
    "often": {"prompt": "{x}" * 100, "max_variable_characters": 1_000_000},
    "negative": {"prompt": "{x}", "negative_prompt": "a" * 100},
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with fake_app(presets=PRESETS, max_body_bytes=32 * 1024 * 1024)[0] as client:
        yield client


@pytest.mark.parametrize("path", ["/sdapi/v1/txt2img", "/sdapi/v1/img2img"])
@pytest.mark.parametrize(
    ("styles", "prompt", "error"),
    [
        (["twice"] * 40, "a cat", "styles: must give prompts of at most 2000 characters"),
        (["often"], "x" * 1000, "styles: must give prompts of at most 2000 characters"),
        (["negative"] * 5000, "a cat", "styles: must give prompts of at most 2000 characters"),
        (["same"] * 5000, "x" * 4_000_000, "prompt: must be at most 2000 characters"),
    ],
    ids=["doubled", "hundredfold", "negative", "a long prompt"],
)
def test_styles_that_grow_over_the_limit_are_refused(
    path: str, styles: list[str], prompt: str, error: str, client: TestClient
) -> None:
    began = time.monotonic()
    body = {"prompt": prompt, "styles": styles, "init_images": [IMAGE]}
    response = client.post(path, json=body)
    assert response.status_code == 422, response.text[:200]
    assert response.json()["detail"].startswith(error)
    assert time.monotonic() - began < 5


def test_styles_within_the_limit_are_applied(client: TestClient) -> None:
    body = {"prompt": "cat", "styles": ["twice"] * 3 + ["same"] * 100}
    response = client.post("/sdapi/v1/txt2img", json=body)
    assert response.json()["parameters"]["prompt"] == "cat"
    assert '"prompt": "' + " ".join(["cat"] * 8) in response.json()["info"]


def test_a_preset_that_grows_over_the_limit_is_refused(client: TestClient) -> None:
    began = time.monotonic()
    response = client.post("/v1/presets/often", json={"variables": {"x": "a" * 1_000_000}})
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("variables: must give prompts of at most 2000 characters")
    assert time.monotonic() - began < 5
