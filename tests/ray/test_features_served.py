"""Features over real HTTP: images in, LoRAs, and the safety checker's deployment."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
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
