"""Our full API: all images at once, or as a stream of events; stopping; presets."""

import base64
import json
from typing import Any

import pytest

from serve_app.errors import GenerationFailed, Overloaded
from serve_app.requests.events import Progress
from tests.api.fakes import fake_app
from tests.compare_images import pixels
from tests.sample_images import as_file, photo


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            name, _, content = block.partition("\n")
            found.append((name.removeprefix("event: "), json.loads(content.removeprefix("data: "))))
    return found


def test_all_images_come_at_once_in_order() -> None:
    client, service = fake_app()
    answer = client.post("/v1/generate", json={"prompt": "x", "num_images": 3, "seed": 5, "id": "mine"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["id"], body["model"]) == ("mine", "emoji")
    assert [(image["index"], image["seed"]) for image in body["images"]] == [(0, 5), (1, 6), (2, 7)]
    assert pixels(base64.b64decode(body["images"][0]["b64_json"])).shape == (128, 128, 3)
    assert service.contexts[0].task == "mine"
    assert service.closed == 3


def test_a_stream_tells_queue_progress_previews_image_and_end() -> None:
    client, _ = fake_app()
    body = {"prompt": "x", "num_images": 2, "previews": 1}
    answer = client.post("/v1/generate", json=body, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert {name for name, _ in events} == {"queued", "progress", "image", "done"}
    assert events[-1][0] == "done"
    assert sorted(event["index"] for name, event in events if name == "image") == [0, 1]
    progress = next(event for name, event in events if name == "progress")
    assert (progress["step"], progress["steps"]) == (1, 2)
    assert base64.b64decode(progress["preview"]).startswith(b"\x89PNG")


def test_an_error_in_a_stream_is_its_last_event() -> None:
    client, service = fake_app()
    service.late_error = GenerationFailed("no luck")
    answer = client.post("/v1/generate", json={"prompt": "x"}, headers={"Accept": "text/event-stream"})
    name, event = events_of(answer.text)[-1]
    assert (name, event["error"]["code"], event["error"]["message"]) == ("error", "generation_failed", "no luck")


def test_what_is_refused_before_a_stream_begins_is_a_status() -> None:
    client, service = fake_app()
    service.error = Overloaded(7)
    for path, body in (("/v1/generate", {}), ("/v1/images/generations", {"stream": True})):
        answer = client.post(path, json={"prompt": "x", **body}, headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


def test_one_may_stop_ones_own() -> None:
    client, service = fake_app()
    service.running[("anyone@testclient", "mine")] = Progress(1, 2)
    assert client.delete("/v1/generate/mine").json() == {"id": "mine", "stopped": 1}
    refused = client.delete("/v1/generate/mine")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")


def test_every_feature_has_its_field() -> None:
    client, service = fake_app()
    body = {
        "prompt": "x",
        "image": base64.b64encode(as_file(photo())).decode(),
        "strength": 0.5,
        "guidance_rescale": 0.3,
        "guidance_end": 0.8,
        "subseed": 3,
        "subseed_strength": 0.2,
        "clip_skip": 1,
        "resize_mode": "crop",
        "output_format": "webp",
        "quality": 80,
    }
    assert client.post("/v1/generate", json=body).status_code == 200
    asked = service.requests[0]
    assert asked.init is not None
    assert asked.variation is not None
    assert (asked.init.strength, asked.variation.seed, asked.sampling.clip_skip) == (0.5, 3, 1)
    assert (asked.sampling.guidance_rescale, asked.sampling.guidance_end) == (0.3, 0.8)
    assert (asked.output.format, asked.output.quality) == ("webp", 80)


def test_a_preset_takes_its_variables_and_nothing_else() -> None:
    client, service = fake_app()
    assert client.get("/v1/presets").json() == [{"name": "avatar", "variables": ["subject"], "model": "emoji"}]
    answer = client.post("/v1/presets/avatar", json={"variables": {"subject": "a smiling man"}, "seed": 1})
    assert answer.status_code == 200, answer.text
    asked = service.requests[0]
    assert (asked.prompt, asked.sampling.num_inference_steps) == ("portrait of a smiling man, comic style", 7)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({}, "variables.subject"),
        ({"subject": "x", "style": "y"}, "variables.style"),
        ({"subject": "(x:9)"}, "variables.subject"),
        ({"subject": "x" * 300}, "variables.subject"),
    ],
)
def test_wrong_variables_are_refused_by_name(variables: dict[str, str], field: str) -> None:
    client, _ = fake_app()
    refused = client.post("/v1/presets/avatar", json={"variables": variables})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, field)
    assert client.post("/v1/presets/nothing", json={}).status_code == 404
