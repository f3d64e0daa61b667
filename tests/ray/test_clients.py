"""The clients people already have, unmodified, against the real server and the built-in model."""

import asyncio
import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import webuiapi
from PIL import Image

from tests.compare_images import pixels
from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.ray.test_serving import counters, rows_in_flight, wait_until
from tests.sample_images import as_file, half_mask, photo


def decoded(item: Any) -> Any:
    return pixels(base64.b64decode(item.b64_json))


def test_the_openai_package(served: str) -> None:
    client = openai.OpenAI(base_url=f"{served}/v1", api_key="unused", max_retries=0)
    assert [model.id for model in client.models.list()] == ["emoji"]
    assert client.models.retrieve("emoji").id == "emoji"
    drawn = client.images.generate(model="emoji", prompt="red apple", n=2, extra_body={"seed": 3})
    assert [decoded(item).shape for item in drawn.data or []] == [(128, 128, 3)] * 2
    assert drawn.usage is not None
    assert drawn.usage.output_tokens == 128
    linked = client.images.generate(model="emoji", prompt="red apple", response_format="url", extra_body={"seed": 3})
    url = (linked.data or [])[0].url or ""
    assert np.abs(pixels(httpx.get(url).content) - decoded((drawn.data or [])[0])).max() <= 1
    mask = photo(128, 128).convert("RGBA")
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    edited = client.images.edit(
        model="emoji", prompt="red apple", image=as_file(photo(128, 128)), mask=as_file(mask), n=1
    )
    assert decoded((edited.data or [])[0]).shape == (128, 128, 3)
    with pytest.warns(DeprecationWarning, match="deprecated"):  # the package's own
        varied = client.images.create_variation(
            image=as_file(photo(128, 128)), model="emoji", response_format="b64_json"
        )
    assert decoded((varied.data or [])[0]).shape == (128, 128, 3)
    with pytest.raises(openai.NotFoundError):
        client.images.generate(model="dall-e-9", prompt="x")
    with pytest.raises(openai.BadRequestError, match="must be between"):
        client.images.generate(model="emoji", prompt="x", size="9000x9000")  # type: ignore[call-overload]


def test_the_openai_package_streaming_and_async(served: str) -> None:
    client = openai.OpenAI(base_url=f"{served}/v1", api_key="unused", max_retries=0)
    stream = client.images.generate(
        model="emoji", prompt="red apple", stream=True, partial_images=2, extra_body={"num_inference_steps": 12}
    )
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    pictures = [decoded(event) for event in events]
    final = pictures[-1]
    errors = [np.abs(picture - final).mean() for picture in pictures]
    assert errors[0] > errors[1] > 0, "real previews, nearer and nearer"

    async def draw() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{served}/v1", api_key="unused", max_retries=0) as async_client:
            return await async_client.images.generate(model="emoji", prompt="red apple")

    assert decoded((asyncio.run(draw()).data or [])[0]).shape == (128, 128, 3)


def test_the_webuiapi_package(served: str) -> None:
    host = httpx.URL(served)
    api = webuiapi.WebUIApi(host=host.host, port=host.port, sampler="Euler", steps=4)
    result = api.txt2img(prompt="red apple", seed=7, width=128, height=128, cfg_scale=4, sampler_name="Euler a")
    assert result.image.size == (128, 128)
    assert result.info["all_seeds"] == [7]
    found = api.png_info(result.image_with_info if hasattr(result, "image_with_info") else result.image)
    assert found is not None
    again = api.img2img(images=[photo(128, 128)], prompt="red apple", denoising_strength=0.5, width=128, height=128)
    assert again.image.size == (128, 128)
    repainted = api.img2img(
        images=[photo(128, 128)], mask_image=half_mask(128, 128), prompt="red apple", width=128, height=128
    )
    kept = np.asarray(repainted.image.convert("RGB")).astype(int)[:, :40]
    assert np.abs(kept - np.asarray(photo(128, 128))[:, :40]).max() == 0
    assert {sampler["name"] for sampler in api.get_samplers()} > {"Euler", "DDIM", "DPM++ 2M"}
    assert [model["model_name"] for model in api.get_sd_models()] == ["emoji"]
    assert api.get_options()["sd_model_checkpoint"] == "emoji"
    api.set_options({"sd_model_checkpoint": "emoji"})
    assert api.get_progress()["progress"] == 0
    assert api.get_memory()["ram"]["total"] > api.get_memory()["ram"]["used"] > 0
    assert api.extra_single_image(photo(32, 32), upscaler_1="Lanczos", upscaling_resize=2).image.size == (64, 64)


def test_progress_and_interruption_while_an_image_is_drawn(served: str) -> None:
    answers: list[httpx.Response] = []
    body = {"prompt": "red apple", "steps": 150, "sampler_name": "Heun", "width": 128, "height": 128}

    def draw() -> None:
        answers.append(httpx.post(f"{served}/sdapi/v1/txt2img", json=body, timeout=120))

    thread = threading.Thread(target=draw)
    thread.start()
    client = httpx.Client(base_url=served, timeout=60)
    wait_until(lambda: client.get("/sdapi/v1/progress").json()["current_image"] is not None, 60)
    found = client.get("/sdapi/v1/progress").json()
    assert 0 < found["progress"] < 1
    assert Image.open(io.BytesIO(base64.b64decode(found["current_image"]))).size == (128, 128)
    assert client.post("/sdapi/v1/interrupt").json() == {}
    thread.join(60)
    assert answers[0].status_code == 200
    assert pixels(base64.b64decode(answers[0].json()["images"][0])).shape == (128, 128, 3), "as far as it was"
    wait_until(lambda: rows_in_flight("emoji") == 0)


def test_our_stream_and_its_delete(served: str) -> None:
    client = httpx.Client(base_url=served, timeout=60)
    body = {"prompt": "red apple", "id": "mine", "num_inference_steps": 150, "sampler": "heun", "num_images": 4}
    seen = []
    with client.stream("POST", "/v1/generate", json=body, headers={"Accept": "text/event-stream"}) as answer:
        for line in answer.iter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
                if seen[-1] == "progress" and seen.count("progress") == 3:
                    assert httpx.delete(f"{served}/v1/generate/mine").json() == {"id": "mine", "stopped": 4}
    assert seen[0] == "queued"
    assert seen[-1] == "error"
    wait_until(lambda: rows_in_flight("emoji") == 0)
    assert client.post("/v1/presets/on-blue", json={"variables": {"subject": "red apple"}}).status_code == 200


OURS = {"num_inference_steps": 150, "sampler": "heun"}
A1111 = {"steps": 150, "sampler_name": "Heun", "width": 128, "height": 128}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/generate", OURS),
        ("/txt2img/", OURS),
        ("/v1/images/generations", {"num_inference_steps": 150}),
        ("/sdapi/v1/txt2img", A1111),
        (
            "/sdapi/v1/img2img",
            {**A1111, "denoising_strength": 1.0, "init_images": [base64.b64encode(as_file(photo())).decode()]},
        ),
    ],
)
def test_whoever_hangs_up_frees_their_rows(served: str, path: str, fields: dict[str, Any]) -> None:
    before = counters("emoji")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served}{path}", json={"prompt": "red apple", **fields}, timeout=1.0)
    wait_until(lambda: counters("emoji").cancelled == before.cancelled + 1)
    after = counters("emoji")
    assert after.rows_in_flight == 0
    assert after.steps - before.steps < 150, "in the middle of it"


def test_who_waits_for_a_replica_hears_it_and_may_leave(deploy: Deploy, tiny_sd: Path) -> None:
    client = deploy(application({"t": tiny_model(tiny_sd, engine={"max_rows": 2})}))
    long = {"prompt": "x", "num_inference_steps": 150, "sampler": "heun", "width": 128, "height": 128}
    events = {"Accept": "text/event-stream"}
    with (
        client.stream("POST", "/v1/generate", json={**long, "id": "first", "num_images": 8}, headers=events) as first,
        client.stream("POST", "/v1/generate", json={**long, "id": "second"}, headers=events) as second,
    ):
        drawn, waiting = first.iter_lines(), second.iter_lines()
        assert next(drawn) == "event: queued"
        assert next(waiting) == "event: queued"
        assert json.loads(next(waiting).removeprefix("data: "))["position"] > 0, "behind the first's other images"
        task = client.post("/internal/progress", json={"id_task": "second"}).json()
        assert (task["queued"], task["completed"]) == (True, False)
        assert client.delete("/v1/generate/second").json() == {"id": "second", "stopped": 1}
        assert [line for line in waiting if line.startswith("event: ")] == ["event: error"]
        assert client.delete("/v1/generate/first").json()["stopped"] > 1, "drawn and waiting ones"
        assert [line for line in drawn if line.startswith("event: ")][-1] == "event: error"
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200, "nothing is left behind"


def test_keys_hold_on_the_real_server(deploy: Deploy, tiny_sd: Path, tmp_path: Path) -> None:
    from serve_app.api.keys import new_key

    key, line = new_key("alice")
    (tmp_path / "keys.json").write_text(f"[{line}]")
    keys = {"file": str(tmp_path / "keys.json")}
    client = deploy(application({"t": tiny_model(tiny_sd)}, ingress={"keys": keys}))
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 401
    authorized = openai.OpenAI(base_url=str(client.base_url.join("/v1")), api_key=key, max_retries=0)
    assert decoded((authorized.images.generate(model="t", prompt="x").data or [])[0]).shape == (64, 64, 3)
    host = client.base_url
    api = webuiapi.WebUIApi(host=host.host, port=host.port or 80, username="alice", password=key)
    assert api.get_options()["sd_model_checkpoint"] == "t"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=str(client.base_url.join("/v1")), api_key="wrong", max_retries=0).models.list()
