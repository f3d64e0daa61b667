"""What a model's safety policy lets out, over HTTP: images, partial images, previews, and what a failure gives."""

import base64
import time
from contextlib import AbstractContextManager
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve_app.deployments.task_calls import RunsIn, TaskCalls
from tests.deployments.fake_handles import (
    BLURRED,
    IMAGE,
    PREVIEW,
    Answer,
    FakeChecker,
    FakeReplicas,
    die,
    fail,
    fail_by_grpc,
    flag,
    hang,
    ingress_client,
)

SHOWN = {"off": True, "flag": True, "blur": False, "refuse": False}
STREAMS = {
    "/v1/generate": {"prompt": "x", "previews": 3},
    "/v1/images/generations": {"prompt": "x", "stream": True, "partial_images": 3},
}
ROUTES: dict[str, dict[str, Any]] = {
    "/txt2img/": {},
    "/v1/generate": {},
    "/v1/images/generations": {},
    "/sdapi/v1/txt2img": {},
    "/sdapi/v1/img2img": {"init_images": [base64.b64encode(IMAGE).decode()]},
}


def holds(response: Any, content: bytes) -> bool:
    """Whether a response has this file, as it is or as base64."""
    return content in response.content or base64.b64encode(content) in response.content


def policy_client(
    monkeypatch: pytest.MonkeyPatch, policy: str, *answers: Answer, **config: Any
) -> AbstractContextManager[TestClient]:
    checker = FakeChecker(*answers or (flag,))
    return ingress_client(monkeypatch, FakeReplicas(), checker, models={"m": {"safety": policy}}, **config)


@pytest.mark.parametrize("stubborn", [False, True], ids=["previews as asked", "previews anyway"])
@pytest.mark.parametrize("policy", SHOWN)
def test_previews_are_rendered_and_sent_only_where_any_image_goes_out(
    monkeypatch: pytest.MonkeyPatch, policy: str, stubborn: bool
) -> None:
    replicas = FakeReplicas(stubborn)
    with ingress_client(monkeypatch, replicas, FakeChecker(flag), models={"m": {"safety": policy}}) as client:
        for path, body in STREAMS.items():
            stream = client.post(path, json=body, headers={"Accept": "text/event-stream"})
            assert holds(stream, PREVIEW) == SHOWN[policy], path
            assert replicas.contexts[-1].previews == (3 if SHOWN[policy] else 0)
            assert ("event: progress" in stream.text) == (path == "/v1/generate"), "progress is told all the same"
        monkeypatch.setattr(TaskCalls, "find_here", lambda *_: [RunsIn("m", "r1")])
        polled = client.get("/sdapi/v1/progress")
        named = client.post("/internal/progress", json={"id_task": "t"})
    assert [holds(polled, PREVIEW), holds(named, PREVIEW)] == [SHOWN[policy]] * 2
    assert polled.json()["progress"] == named.json()["progress"] == 0.5
    owner = "anyone@testclient"
    assert [args for _, *args in replicas.asked] == [[owner, SHOWN[policy]]] * 2


@pytest.mark.parametrize("path", ROUTES)
def test_a_flagged_image_goes_out_as_the_policy_says(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    body = {"prompt": "x", **ROUTES[path]}
    found: dict[str, Any] = {}
    for policy in SHOWN:
        with policy_client(monkeypatch, policy) as client:
            found[policy] = client.post(path, json=body)
    assert {policy: holds(answer, IMAGE) for policy, answer in found.items()} == SHOWN
    assert holds(found["blur"], BLURRED)
    assert found["refuse"].status_code in (400, 422)
    assert not holds(found["refuse"], BLURRED)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("policy", ["flag", "blur", "refuse"])
@pytest.mark.parametrize("answer", [die, fail, fail_by_grpc, hang])
def test_an_image_that_cannot_be_reviewed_is_withheld(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, policy: str, path: str
) -> None:
    with policy_client(monkeypatch, policy, answer, review_timeout_s=0.2) as client:
        began = time.monotonic()
        refused = client.post(path, json={"prompt": "x", **ROUTES[path]})
        assert time.monotonic() - began < 30
    assert refused.status_code == 503
    assert refused.headers["x-error"] == "review_failed"
    assert "withheld" in refused.text
    assert "secret" not in refused.text
    assert not holds(refused, IMAGE)


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_ends_with_an_error_where_the_image_cannot_be_reviewed(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    with policy_client(monkeypatch, "blur", hang, review_timeout_s=0.2) as client:
        stream = client.post(path, json=STREAMS[path], headers={"Accept": "text/event-stream"})
    assert stream.status_code == 200
    assert "event: error" in stream.text
    assert "review_failed" in stream.text
    assert not holds(stream, IMAGE)


def test_another_replica_reviews_the_image_where_one_died(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = FakeChecker(die, die, flag)
    with ingress_client(monkeypatch, FakeReplicas(), checker, models={"m": {"safety": "blur"}}) as client:
        assert holds(client.post("/txt2img/", json={"prompt": "x"}), BLURRED)
    assert checker.reviewed == [IMAGE] * 3


def test_a_review_that_takes_too_long_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = FakeChecker(hang)
    settings = {"m": {"safety": "flag"}}
    with ingress_client(monkeypatch, FakeReplicas(), checker, models=settings, review_timeout_s=0.2) as client:
        assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 503
    assert checker.cancelled == len(checker.reviewed) == 2, "it was asked twice"
