"""AUTOMATIC1111's shapes; the webuiapi client itself is run against the real server."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve_app.requests.events import MemoryUse, Progress, Queued
from tests.api.fakes import fake_app
from tests.compare_images import pixels, raster_image
from tests.sample_images import as_file, half_mask, photo

TXT2IMG = "/sdapi/v1/txt2img"


def send(image: Any) -> str:
    return base64.b64encode(as_file(image)).decode()


def test_txt2img_answers_images_parameters_and_a_json_string() -> None:
    client, service = fake_app()
    body = {
        "prompt": "a (cat:1.2)",
        "negative_prompt": "dog",
        "steps": 5,
        "cfg_scale": 6,
        "width": 128,
        "height": 128,
        "sampler_name": "DPM++ 2M Karras",
        "batch_size": 2,
        "n_iter": 2,
        "seed": 7,
        "override_settings": {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "emoji"},
        "something_new": True,
    }
    answer = client.post(TXT2IMG, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [pixels(base64.b64decode(image)).shape for image in found["images"]] == [(128, 128, 3)] * 4
    assert found["parameters"]["steps"] == 5
    info = json.loads(found["info"])
    assert info["all_seeds"] == [7, 8, 9, 10]
    assert "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6, Seed: 7, Size: 128x128" in info["infotexts"][0]
    asked = service.requests[0]
    assert (
        asked.sampling.sampler,
        asked.sampling.scheduler,
        asked.sampling.clip_skip,
        asked.sampling.prompt_syntax,
    ) == ("dpmpp_2m", "karras", 1, "a1111")


def test_a_samplers_own_schedule_is_a1111s() -> None:
    client, service = fake_app()
    for name in ("DPM++ 2M", "Euler", "k_euler_a"):
        assert client.post(TXT2IMG, json={"prompt": "x", "sampler_name": name}).status_code == 200
    found = [(one.sampling.sampler, one.sampling.scheduler) for one in service.requests]
    assert found == [("dpmpp_2m", "karras"), ("euler", "automatic"), ("euler_a", "automatic")]


def test_img2img_inverts_and_blurs_its_mask() -> None:
    client, service = fake_app()
    body = {
        "prompt": "x",
        "init_images": ["data:image/png;base64," + send(photo())],
        "mask": send(half_mask()),
        "inpainting_mask_invert": 1,
        "denoising_strength": 0.6,
    }
    answer = client.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 200, answer.text
    init = service.requests[0].init
    assert init is not None
    assert init.mask is not None
    assert (init.strength, init.mask.content[0], init.mask.content[63]) == (0.6, 255, 0)
    assert "init_images" not in answer.json()["parameters"]


def test_hires_fields() -> None:
    client, service = fake_app()
    body = {"prompt": "x", "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos", "denoising_strength": 0.4}
    assert client.post(TXT2IMG, json=body).status_code == 200
    hires = service.requests[0].hires
    assert hires is not None
    assert (hires.width, hires.strength, hires.upscaler) == (192, 0.4, "lanczos")


def test_progress_and_interrupt_are_the_callers_own() -> None:
    client, service = fake_app()
    assert client.get("/sdapi/v1/progress").json()["progress"] == 0
    client.post(TXT2IMG, json={"prompt": "x"})
    latest = service.contexts[0].task
    service.running[("anyone@testclient", latest)] = Progress(3, 12, 4.5, b"png")
    service.running[("anyone@testclient", "task(1)")] = Progress(6, 12)
    found = client.get("/sdapi/v1/progress").json()
    assert (found["progress"], found["eta_relative"], found["state"]["sampling_step"]) == (0.25, 4.5, 3)
    assert base64.b64decode(found["current_image"]) == b"png"
    assert client.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    task = client.post("/internal/progress", json={"id_task": "task(1)"}).json()
    assert (task["active"], task["progress"]) == (True, 0.5)
    assert client.post("/sdapi/v1/interrupt").json() == {}
    assert service.cut == [("anyone@testclient", latest)]
    service.running[("anyone@testclient", "task(2)")] = Queued(3, 7.5)
    task = client.post("/internal/progress", json={"id_task": "task(2)"}).json()
    assert (task["active"], task["queued"], task["completed"], task["textinfo"]) == (False, True, False, "3 before")
    service.running[("anyone@testclient", latest)] = Queued(0, 7.5)
    assert client.get("/sdapi/v1/progress").json()["eta_relative"] == 7.5
    assert client.post("/internal/progress", json={"id_task": "other"}).json()["completed"]


@pytest.mark.parametrize("header", ["User-Agent", "X-Forwarded-For"])
def test_two_callers_behind_one_proxy_have_sessions_of_their_own(header: str) -> None:
    client, service = fake_app()
    mine, theirs = {header: "203.0.113.7"}, {header: "203.0.113.8"}
    client.post(TXT2IMG, json={"prompt": "x"}, headers=mine)
    service.running[("anyone@testclient", service.contexts[0].task)] = Progress(3, 12, 4.5, b"png")
    assert client.get("/sdapi/v1/progress", headers=theirs).json()["current_image"] is None
    for route in ("interrupt", "skip"):
        client.post(f"/sdapi/v1/{route}", headers=theirs)
    assert service.running, "theirs stops nothing of mine"
    assert client.get("/sdapi/v1/progress", headers=mine).json()["progress"] == 0.25
    client.post("/sdapi/v1/interrupt", headers=mine)
    assert not service.running


def test_an_interrupted_answer_has_the_images_there_are() -> None:
    client, service = fake_app()
    service.stopped_seeds = {8}
    answer = client.post(TXT2IMG, json={"prompt": "x", "seed": 7, "batch_size": 3})
    assert answer.status_code == 200
    assert len(answer.json()["images"]) == 2
    assert json.loads(answer.json()["info"])["all_seeds"] == [7, 9]
    service.stopped_seeds = {7, 8, 9}
    assert client.post(TXT2IMG, json={"prompt": "x", "seed": 7, "batch_size": 3}).status_code == 409


def test_memory_counts_each_machine_and_gpu_once() -> None:
    client, service = fake_app()
    found = client.get("/sdapi/v1/memory").json()
    assert found == {"ram": {"free": 95, "used": 5, "total": 100}, "cuda": {"error": "unavailable"}}
    service.machines = [MemoryUse("a", 2, 100, "a/0", 40, 80, 10), MemoryUse("a", 3, 100, "a/0", 40, 80, 20)]
    assert client.get("/sdapi/v1/memory").json()["cuda"] == {
        "system": {"free": 40, "used": 40, "total": 80},
        "reserved": {"current": 30},
    }


def test_fields_that_ask_for_nothing_are_taken_and_echoed() -> None:
    client, _ = fake_app()
    idle = {"s_churn": 0, "s_noise": 1, "alwayson_scripts": {}, "hr_sampler_name": "Euler", "tiling": False}
    answer = client.post(TXT2IMG, json={"prompt": "x", "my_ui": "1.0", **idle})
    assert answer.status_code == 200
    assert answer.json()["parameters"]["my_ui"] == "1.0"


def test_images_that_are_not_to_be_sent_are_drawn_all_the_same() -> None:
    client, service = fake_app()
    body = {"prompt": "x", "init_images": [send(photo())], "mask": send(half_mask()), "send_images": False}
    answer = client.post("/sdapi/v1/img2img", json={**body, "width": 64, "height": 64})
    assert (answer.status_code, answer.json()["images"]) == (200, [])
    assert len(service.requests) == 1


@pytest.mark.parametrize(("fill", "kept"), [(0, False), (1, True)])
def test_the_start_under_the_mask_is_the_original_or_what_surrounds_it(fill: int, kept: bool) -> None:
    client, service = fake_app()
    picture = Image.new("RGB", (64, 64), "blue")
    picture.paste("red", (16, 16, 48, 48))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 56, 56))
    body = {"prompt": "x", "init_images": [send(picture)], "mask": send(mask), "mask_blur": 0, "inpainting_fill": fill}
    assert client.post("/sdapi/v1/img2img", json={**body, "width": 64, "height": 64}).status_code == 200
    init = service.requests[0].init
    assert init is not None
    start = raster_image(init.raster)
    assert start.getpixel((32, 32)) == ((255, 0, 0) if kept else (0, 0, 255))
    assert start.getpixel((0, 0)) == (0, 0, 255)


def test_a_files_infotext_is_read_back() -> None:
    client, _ = fake_app()
    for kind in ("png", "jpeg", "webp"):
        body = {"prompt": "a cat", "negative_prompt": "a dog", "seed": 3, "output_format": kind}
        drawn = client.post("/txt2img/", json=body).content
        found = client.post("/sdapi/v1/png-info", json={"image": base64.b64encode(drawn).decode()}).json()
        assert found["info"].startswith("a cat\nNegative prompt: a dog\nSteps: 25")
        fields = found["parameters"]
        assert (fields["Prompt"], fields["Negative prompt"]) == ("a cat", "a dog")
        assert (fields["Seed"], fields["Size-1"], fields["Sampler"]) == ("3", "128", "DPM++ 2M")


@pytest.mark.parametrize(
    "path",
    [
        "samplers",
        "schedulers",
        "sd-models",
        "sd-vae",
        "upscalers",
        "latent-upscale-modes",
        "prompt-styles",
        "embeddings",
        "loras",
        "cmd-flags",
        "scripts",
        "script-info",
        "options",
    ],
)
def test_the_small_lists_answer(path: str) -> None:
    client, _ = fake_app()
    answer = client.get(f"/sdapi/v1/{path}")
    assert answer.status_code == 200
    assert isinstance(answer.json(), list | dict)


def test_presets_are_prompt_styles() -> None:
    client, service = fake_app()
    assert client.get("/sdapi/v1/prompt-styles").json() == [
        {"name": "avatar", "prompt": "portrait of {prompt}, comic style", "negative_prompt": ""}
    ]
    assert client.post(TXT2IMG, json={"prompt": "a man", "styles": ["avatar"]}).status_code == 200
    assert service.requests[0].prompt == "portrait of a man, comic style"


def test_a_picture_is_enlarged() -> None:
    client, _ = fake_app()
    answer = client.post("/sdapi/v1/extra-single-image", json={"image": send(photo()), "upscaling_resize": 2})
    assert pixels(base64.b64decode(answer.json()["image"])).shape == (128, 128, 3)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"sampler_name": "DPM adaptive"}, 404, "Sampler not found"),
        ({"tiling": True}, 422, "tiling: must be left out"),
        ({"script_name": "x"}, 422, "script_name: must be left out"),
        ({"s_churn": 0.5}, 422, "s_churn: must be left out"),
        ({"s_noise": 1.1}, 422, "s_noise: must be left out"),
        ({"enable_hr": True, "hr_prompt": "other"}, 422, "hr_prompt: must be left out"),
        ({"styles": ["none"]}, 422, "styles: must be among avatar"),
        (
            {"override_settings": {"sd_model_checkpoint": "gone"}},
            422,
            "override_settings.sd_model_checkpoint: must be one of emoji, other",
        ),
        ({"override_settings": {"CLIP_stop_at_last_layers": 99}}, 422, "must be between 1 and 12"),
        ({"steps": "many"}, 422, "steps: must be"),
        ({"steps": 999}, 422, "steps: must be between 1 and 150"),
        ({"cfg_scale": 99}, 422, "cfg_scale: must be between 0 and 30"),
        ({"batch_size": 99}, 422, "batch_size: must be between 1 and 8"),
        ({"enable_hr": True, "denoising_strength": 2}, 422, "denoising_strength: must be between 0 and 1"),
    ],
)
def test_errors_have_a1111s_shape(body: dict[str, Any], status: int, text: str) -> None:
    client, _ = fake_app()
    answer = client.post(TXT2IMG, json={"prompt": "x", **body})
    assert set(answer.json()) == {"error", "detail", "body", "errors"}
    assert answer.status_code == status
    assert text in answer.json()["detail"]
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "gone"}).status_code == 422
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "emoji"}).status_code == 200


def test_only_the_masked_region_is_drawn_and_the_rest_is_the_original() -> None:
    client, service = fake_app()
    original, mask = photo(200, 120), Image.new("L", (200, 120), 0)
    mask.paste(255, (100, 40, 140, 80))
    body = {
        "prompt": "x",
        "init_images": [send(original)],
        "mask": send(mask),
        "mask_blur": 0,
        "inpaint_full_res": True,
        "inpainting_fill": 1,
        "inpaint_full_res_padding": 10,
        "width": 128,
        "height": 128,
    }
    answer = client.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 200, answer.text
    asked = service.requests[0]
    assert asked.init is not None
    assert (asked.width, asked.height) == (128, 128)
    region = raster_image(asked.init.raster)
    expected = original.crop((90, 30, 150, 90)).resize((128, 128), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(region).astype(int) - np.asarray(expected)).max() <= 1
    found = pixels(base64.b64decode(answer.json()["images"][0]))
    assert found.shape == (120, 200, 3), "the size of what was sent"
    assert found[40:80, 100:140].max() == 0, "drawn, which is black here"
    outside = np.ones((120, 200), bool)
    outside[40:80, 100:140] = False
    assert (found[outside] == np.asarray(original)[outside]).all()
    refused = client.post("/sdapi/v1/img2img", json={**body, "mask": send(Image.new("L", (200, 120), 0))})
    assert (refused.status_code, "must have a white part" in refused.json()["detail"]) == (422, True)
