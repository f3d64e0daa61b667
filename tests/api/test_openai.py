"""OpenAI's shapes, field by field; the official client itself is run against the real server."""

import base64
import json

import numpy as np
import pytest
from PIL import Image

from serve_app.errors import ContentRefused, GenerationFailed, Overloaded
from tests.api.fakes import fake_app
from tests.compare_images import pixels
from tests.sample_images import as_file, photo

GENERATIONS = "/v1/images/generations"


def test_generations_answer_in_openais_shape() -> None:
    client, service = fake_app()
    body = {"prompt": "a (cat)", "n": 2, "size": "128x64", "seed": 3, "quality": "hd", "user": "u", "model": "dall-e-3"}
    answer = client.post(GENERATIONS, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert set(found) == {"created", "data", "background", "output_format", "quality", "size", "usage"}
    assert found["size"] == "128x64"
    assert found["usage"] == {
        "input_tokens": 2,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 2},
        "output_tokens": 64,
        "total_tokens": 66,
    }
    assert [pixels(base64.b64decode(item["b64_json"])).shape for item in found["data"]] == [(64, 128, 3)] * 2
    assert service.requests[0].sampling.prompt_syntax == "plain", "brackets are text here"
    assert [request.seed for request in service.requests] == [3, 4]


def test_links_work_until_they_are_changed_or_expire() -> None:
    client, _ = fake_app()
    answer = client.post(GENERATIONS, json={"prompt": "x", "response_format": "url"})
    url = answer.json()["data"][0]["url"]
    fetched = client.get(url)
    assert fetched.headers["content-type"] == "image/png"
    assert pixels(fetched.content).shape == (128, 128, 3)
    for forged in (url.replace("expires=", "expires=9"), url[:-1] + ("0" if url[-1] != "0" else "1")):
        assert client.get(forged).status_code == 404


def test_a_stream_has_real_partial_images_and_then_the_completed_one() -> None:
    client, service = fake_app()
    answer = client.post(GENERATIONS, json={"prompt": "x", "stream": True, "partial_images": 2})
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n") if line.startswith("data")]
    assert [event["type"] for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert events[0]["partial_image_index"] == 0
    assert set(events[1]) == {
        "type",
        "b64_json",
        "created_at",
        "size",
        "quality",
        "background",
        "output_format",
        "usage",
    }
    assert service.contexts[0].previews == 2


def test_an_edit_repaints_what_is_transparent() -> None:
    client, service = fake_app()
    hole = np.asarray(photo().convert("RGBA")).copy()
    hole[:, 32:, 3] = 0
    files = {"image": ("a.png", as_file(photo())), "mask": ("m.png", as_file(Image.fromarray(hole)))}
    answer = client.post("/v1/images/edits", files=files, data={"prompt": "a hat", "n": "1"})
    assert answer.status_code == 200, answer.text
    init = service.requests[0].init
    assert init is not None
    assert init.mask is not None
    mask = np.frombuffer(init.mask.content, np.uint8).reshape(64, 64)
    assert mask[:, 32:].min() == 255
    assert mask[:, :32].max() == 0
    listed = client.post("/v1/images/edits", files={"image[]": ("a.png", as_file(photo()))}, data={"prompt": "x"})
    assert listed.status_code == 200, listed.text
    varied = client.post("/v1/images/variations", files={"image": ("a.png", as_file(photo()))}, data={"n": "2"})
    assert varied.status_code == 200, varied.text
    assert service.requests[-1].prompt == ""


def test_models_and_their_other_names_are_listed() -> None:
    client, _ = fake_app()
    found = client.get("/v1/models").json()
    assert found["object"] == "list"
    assert [model["id"] for model in found["data"]] == ["emoji", "other", "dall-e-3"]
    assert client.get("/v1/models/emoji").json() == {
        "id": "emoji",
        "object": "model",
        "created": 0,
        "owned_by": "darkroom",
    }


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "prompt", "invalid_request"),
        ({"prompt": "x", "n": 11}, 400, "n", "invalid_request"),
        ({"prompt": "x", "size": "big"}, 400, "size", "invalid_request"),
        ({"prompt": "x", "size": "100x100"}, 400, "size", "invalid_request"),
        ({"prompt": "x", "n": 9}, 400, "n", "invalid_request"),
        ({"prompt": "x", "num_inference_steps": 999}, 400, "num_inference_steps", "invalid_request"),
        ({"prompt": "x", "background": "transparent"}, 400, "background", "invalid_request"),
        ({"prompt": "x", "model": "gpt-9"}, 404, "model", "model_not_found"),
    ],
)
def test_errors_have_openais_shape(body: dict[str, object], status: int, param: str, code: str) -> None:
    client, _ = fake_app()
    answer = client.post(GENERATIONS, json=body)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)


@pytest.mark.parametrize(
    ("raised", "status", "kind"),
    [
        (Overloaded(7), 429, "rate_limit_error"),
        (ContentRefused("no"), 400, "image_generation_user_error"),
        (GenerationFailed("x"), 500, "server_error"),
    ],
)
def test_failures_have_openais_shape(raised: Exception, status: int, kind: str) -> None:
    client, service = fake_app()
    service.error = raised
    answer = client.post(GENERATIONS, json={"prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    if status == 429:
        assert answer.headers["retry-after"] == "7"
