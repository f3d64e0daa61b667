"""The limits of callers, through HTTP and in one process. `tests/ray/test_usage_served.py` has several replicas."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve_app.api.keys import new_key
from tests.api.fakes import FakeService, fake_app


def keyed_app(folder: Path, **limits: Any) -> tuple[TestClient, FakeService]:
    """An app whose client sends a key with these limits."""
    key, entry = new_key("bob")
    (folder / "keys.json").write_text(json.dumps([{**json.loads(entry), **limits}]))
    client, service = fake_app(keys={"file": str(folder / "keys.json")})
    client.headers["Authorization"] = f"Bearer {key}"
    return client, service


def test_a_keys_models_and_priority_apply_to_its_requests(tmp_path: Path) -> None:
    client, service = keyed_app(tmp_path, models=["emoji"], priority="batch")
    refused = client.post("/txt2img/", json={"prompt": "x", "model": "other"})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "model")
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200
    assert (service.contexts[0].owner, service.contexts[0].is_batch) == ("bob", True)


def test_device_time_is_summed_only_for_callers_with_a_limit_of_it(tmp_path: Path) -> None:
    """Else every address that ever called would be kept for a day."""
    for limits, counted in (({}, False), ({"daily_device_seconds": 9.0}, True)):
        client, service = keyed_app(tmp_path, **limits)
        assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200
        assert service.contexts[0].counts_device_time == counted


def test_a_burst_of_one_admits_one(tmp_path: Path) -> None:
    client, _ = keyed_app(tmp_path, rate=0.01, burst=1)
    statuses = [client.post("/txt2img/", json={"prompt": "x"}).status_code for _ in range(3)]
    assert statuses == [200, 429, 429]
    assert int(client.post("/txt2img/", json={"prompt": "x"}).headers["retry-after"]) > 30


@pytest.mark.parametrize("limit", ["concurrency", "max_images"])
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/generate", {"num_images": 3}, "num_images"),
        ("/v1/images/generations", {"n": 3}, "n"),
        ("/sdapi/v1/txt2img", {"batch_size": 3}, "batch_size"),
    ],
)
def test_more_images_than_a_key_may_ever_have_is_an_invalid_field(
    tmp_path: Path, limit: str, path: str, body: dict[str, int], field: str
) -> None:
    client, service = keyed_app(tmp_path, **{limit: 2})
    answer = client.post(path, json={"prompt": "x", **body})
    assert answer.status_code == (400 if field == "n" else 422)
    assert field in answer.text
    assert "must be at most 2" in answer.text
    assert service.requests == []
    assert client.post(path, json={"prompt": "x", field: 2}).status_code == 200


def test_concurrency_is_held_until_the_images_are_there_and_then_given_back(tmp_path: Path) -> None:
    client, service = keyed_app(tmp_path, concurrency=3)
    service.delay_s = 1.0
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(client.post("/v1/generate", json={"prompt": "x", "num_images": 2}).status_code)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert sorted(statuses) == [200, 429, 429]
    service.delay_s = 0.0
    for accept in ("application/json", "text/event-stream"):
        for _ in range(3):
            answer = client.post("/v1/generate", json={"prompt": "x", "num_images": 3}, headers={"Accept": accept})
            assert answer.status_code == 200


def test_a_request_that_is_refused_or_fails_gives_its_place_back(tmp_path: Path) -> None:
    client, service = keyed_app(tmp_path, concurrency=1)
    for _ in range(2):
        assert client.post("/txt2img/", json={"prompt": "x", "width": 7}).status_code == 422
    service.error = RuntimeError("boom")
    for _ in range(2):
        assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 500
    service.error = None
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/txt2img/", {"prompt": "x", "image": "AAAA"}),
        ("/v1/generate", {"prompt": "x", "image": "AAAA"}),
        ("/sdapi/v1/img2img", {"prompt": "x", "init_images": ["AAAA"]}),
        ("/sdapi/v1/png-info", {"image": "AAAA"}),
        ("/sdapi/v1/extra-single-image", {"image": "AAAA"}),
        ("/v1/presets/avatar", {"variables": {"subject": "x"}}),
    ],
)
def test_callers_without_keys_are_limited_before_an_image_is_decoded(path: str, body: dict[str, Any]) -> None:
    client, _ = fake_app(anonymous={"rate": 0.01, "burst": 1})
    assert client.post(path, json=body).status_code in (200, 422)
    assert client.post(path, json=body).status_code == 429


def test_uploads_are_limited_before_an_image_is_decoded() -> None:
    for path, data in (("/v1/images/edits", {"prompt": "x"}), ("/v1/images/variations", {})):
        client, _ = fake_app(anonymous={"rate": 0.01, "burst": 1})
        for status in (400, 429):
            assert client.post(path, data=data, files={"image": b"no image"}).status_code == status


def test_callers_without_keys_have_limits_by_default() -> None:
    from serve_app.config import IngressConfig

    limits = IngressConfig().anonymous
    assert limits.are_counted
    assert limits.concurrency is not None
