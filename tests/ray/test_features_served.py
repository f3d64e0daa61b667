"""Features over real HTTP: images in, LoRAs, and the safety checker's deployment."""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ray
from PIL import Image

from tests.checkpoints import save_safety_checker
from tests.compare_images import pixels
from tests.models.lora_files import save_lora
from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.sample_images import as_file, half_mask, photo


def send(image: Image.Image) -> str:
    return base64.b64encode(as_file(image)).decode()


def test_images_and_loras_come_with_the_body(deploy: Deploy, tiny_sd: Path, tmp_path: Path) -> None:
    lora = save_lora(tiny_sd, tmp_path / "style.safetensors", 0, "diffusers")
    model = tiny_model(tiny_sd, loras={"style": str(lora)})
    client = deploy(application({"tiny": model}))
    body: dict[str, Any] = {"prompt": "a cat", "seed": 1}
    variants = [
        {},
        {"loras": [{"name": "style", "weight": 0.8}]},
        {"image": send(photo()), "strength": 0.5},
        {"image": "data:image/png;base64," + send(photo()), "mask": send(half_mask())},
        {"hires": {"scale": 1.5, "strength": 0.5}},
    ]
    answers = [client.post("/txt2img/", json={**body, **variant}) for variant in variants]
    assert [answer.status_code for answer in answers] == [200] * 5, [answer.text[:200] for answer in answers]
    pictures = [pixels(answer.content) for answer in answers]
    assert pictures[4].shape == (96, 96, 3)
    assert all(np.abs(pictures[0] - other).max() > 5 for other in pictures[1:4])
    tagged = client.post("/txt2img/", json={**body, "prompt": "a cat<lora:style:0.8>"})
    assert np.abs(pixels(tagged.content) - pictures[1]).max() <= 1
    for wrong, field in (
        ({"image": "nonsense!"}, "image"),
        ({"image": send(photo()), "mask": send(half_mask(8, 8))}, "mask"),
        ({"loras": [{"name": "other"}]}, "loras"),
        ({"image": send(photo()), "strength": 0.1}, "strength"),
    ):
        refused = client.post("/txt2img/", json={**body, **wrong})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, field)


def test_one_safety_checker_serves_models_of_unlike_policies(deploy: Deploy, tiny_sd: Path, tmp_path: Path) -> None:
    models = {policy: tiny_model(tiny_sd) for policy in ("flag", "blur", "refuse")}
    safety = {"checker": str(save_safety_checker(tmp_path, flags=True)), "device": "cpu"}
    client = deploy(
        application(
            models,
            settings={policy: {"safety": policy} for policy in models},
            safety=safety,
            ingress={"review_timeout_s": 1},
            args={"safety": {"num_cpus": 0.5, "num_gpus": 0.1}},
        )
    )
    answers = {policy: client.post("/txt2img/", json={"prompt": "x", "seed": 3, "model": policy}) for policy in models}
    assert answers["flag"].headers["x-content-flagged"] == "true"
    assert answers["blur"].headers["x-content-flagged"] == "true"
    assert pixels(answers["blur"].content).std() < pixels(answers["flag"].content).std()
    with Image.open(io.BytesIO(answers["blur"].content)) as image:
        assert "parameters" in image.info
    assert answers["refuse"].status_code == 422
    assert answers["refuse"].json()["error"]["code"] == "content_refused"
    stream = {"prompt": "x", "seed": 3, "previews": 2, "num_inference_steps": 20}
    for policy in models:
        events = client.post("/v1/generate", json={**stream, "model": policy}, headers={"Accept": "text/event-stream"})
        assert "event: progress" in events.text
        assert ('"preview": "' in events.text) == (policy == "flag")
        assert ("content_refused" in events.text) == (policy == "refuse")
    check_partial_image(client)
    check_dead_checker(client)


def check_partial_image(client: httpx.Client) -> None:
    """The image of an interrupted request is reviewed, too, and its preview is not shown before."""
    body = {"prompt": "x", "steps": 140, "sampler_name": "Heun", "override_settings": {"sd_model_checkpoint": "refuse"}}
    with ThreadPoolExecutor(1) as pool:
        cut = pool.submit(client.post, "/sdapi/v1/txt2img", json=body)
        polled = []
        while not cut.done():
            polled.append(client.get("/sdapi/v1/progress").json())
            if sum(one["progress"] > 0 for one in polled) > 2:
                client.post("/sdapi/v1/interrupt")
    assert any(one["progress"] > 0 for one in polled)
    assert not any(one["current_image"] for one in polled)
    assert (cut.result().status_code, cut.result().json()["error"]) == (422, "ContentRefused")


def check_dead_checker(client: httpx.Client) -> None:
    """While there is no checker, nothing goes out; then Serve has started another one."""
    actors: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    (name,) = [one["name"] for one in actors if "#safety#" in one["name"]]
    ray.kill(ray.get_actor(name, namespace="serve"))
    body = {"prompt": "x", "seed": 3, "model": "flag"}
    found = [client.post("/txt2img/", json=body)]
    deadline = time.monotonic() + 60
    while found[-1].status_code != 200:
        assert (found[-1].status_code, found[-1].headers["x-error"]) == (503, "review_failed"), found[-1].text
        assert time.monotonic() < deadline
        found.append(client.post("/txt2img/", json=body))
    assert found[-1].headers["x-content-flagged"] == "true"
    assert len(found) > 1, "the first one came while there was no checker"
