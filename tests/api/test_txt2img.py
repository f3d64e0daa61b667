"""`POST /txt2img/`: what it accepts, what it answers, and how it refuses."""

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from serve_app.errors import GenerationFailed, NotReady, Overloaded
from tests.api.fakes import fake_app

TALK = {
    "prompt": "A potrait of a man , comic styled, detailed hair, smiling face",
    "negative_prompt": "nsfw, bad eyes, bad teeth",
    "num_inference_steps": 40,
    "width": 512,
    "height": 512,
    "guidance_scale": 7.5,
}


def test_the_talks_six_fields_arrive_and_a_large_picture_is_drawn_at_the_native_area() -> None:
    client, service = fake_app()
    answer = client.post("/txt2img/", json=TALK)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (512, 512)
    assert answer.headers["x-drawn-size"] == "128x128"
    assert answer.headers["server-timing"] == "queue;dur=1.0, encode;dur=2.0, denoise;dur=3.0, decode;dur=4.0"
    asked = service.requests[0]
    assert (asked.prompt, asked.sampling.negative_prompt) == (TALK["prompt"], TALK["negative_prompt"])
    assert (asked.sampling.num_inference_steps, asked.sampling.guidance_scale, asked.model) == (40, 7.5, "emoji")
    assert service.closed == 1


def test_what_is_left_out_comes_from_the_model_and_the_seed_is_told() -> None:
    client, service = fake_app()
    answer = client.post("/txt2img", json={"prompt": "x"})
    asked = service.requests[0]
    assert (asked.width, asked.height, asked.sampling.num_inference_steps, asked.sampling.guidance_scale) == (
        128,
        128,
        25,
        4.0,
    )
    assert answer.headers["x-seed"] == str(asked.seed)
    assert "x-drawn-size" not in answer.headers
    client.post("/txt2img", json={"prompt": "x", "model": "other"})
    assert service.requests[1].sampling.num_inference_steps == 4
    assert service.requests[0].seed != service.requests[1].seed


@pytest.mark.parametrize(
    ("width", "height", "drawn"),
    [(512, 512, (128, 128)), (512, 256, (184, 88)), (128, 64, (128, 64)), (64, 256, (64, 256)), (1024, 64, (512, 32))],
)
def test_aspect_ratio_is_kept(width: int, height: int, drawn: tuple[int, int]) -> None:
    client, service = fake_app()
    answer = client.post("/txt2img/", json={"prompt": "x", "width": width, "height": height})
    assert Image.open(io.BytesIO(answer.content)).size == (width, height)
    assert (service.requests[0].width, service.requests[0].height) == drawn


@pytest.mark.parametrize(
    ("body", "sampler", "schedule"),
    [
        ({"sampler": "Euler", "scheduler": "Karras"}, "euler", "karras"),
        ({"sampler": "DDIM", "scheduler": "Linear"}, "ddim", "linear"),
        ({"sampler": "DDPM"}, "ddpm", "automatic"),
        ({"sampler": "DPM++ 2M SDE", "scheduler": "exponential"}, "dpmpp_2m_sde", "exponential"),
        ({"sampler": "k_euler_a"}, "euler_a", "automatic"),
        ({"sampler": "PLMS"}, "pndm", "automatic"),
        ({"scheduler": "PNDM"}, "pndm", "automatic"),
        ({"scheduler": "SGM Uniform"}, "dpmpp_2m", "sgm_uniform"),
    ],
)
def test_names_as_people_write_them(body: dict[str, str], sampler: str, schedule: str) -> None:
    client, service = fake_app()
    assert client.post("/txt2img/", json={"prompt": "x", **body}).status_code == 200
    assert (service.requests[0].sampling.sampler, service.requests[0].sampling.scheduler) == (sampler, schedule)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_each_format_carries_the_infotext(name: str) -> None:
    client, _ = fake_app()
    body = {**TALK, "seed": 5, "output_format": name, "sampler": "Euler a"}
    answer = client.post("/txt2img/", json=body)
    assert answer.headers["content-type"] == f"image/{name}"
    image = Image.open(io.BytesIO(answer.content))
    if name == "png":
        text = image.text["parameters"]  # type: ignore[attr-defined]
    else:
        text = image.getexif().get_ifd(0x8769)[0x9286].removeprefix(b"UNICODE\0").decode("utf-16-be")
    first, second, third = text.split("\n")
    assert first == TALK["prompt"]
    assert second == f"Negative prompt: {TALK['negative_prompt']}"
    assert third.startswith(
        "Steps: 40, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 5, Size: 128x128, Model: emoji, "
    )


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n"}, "prompt"),
    ({"prompt": "x" * 2001}, "prompt"),
    ({"prompt": "x\0y"}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ["x"]}, "prompt"),
    ({"negative_prompt": "x" * 2001}, "negative_prompt"),
    ({"width": 0}, "width"),
    ({"width": -64}, "width"),
    ({"width": 100}, "width"),
    ({"width": 10**9}, "width"),
    ({"height": 10**30}, "height"),
    ({"height": "512"}, "height"),
    ({"height": 512.5}, "height"),
    ({"width": 2048, "height": 2048}, "width"),
    ({"num_inference_steps": 0}, "num_inference_steps"),
    ({"num_inference_steps": 151}, "num_inference_steps"),
    ({"num_inference_steps": True}, "num_inference_steps"),
    ({"guidance_scale": float("nan")}, "guidance_scale"),
    ({"guidance_scale": float("inf")}, "guidance_scale"),
    ({"guidance_scale": -1}, "guidance_scale"),
    ({"guidance_scale": 31}, "guidance_scale"),
    ({"guidance_scale": "high"}, "guidance_scale"),
    ({"model": "sd99"}, "model"),
    ({"sampler": "dpm_adaptive"}, "sampler"),
    ({"sampler": "ddim", "scheduler": "karras"}, "scheduler"),
    ({"scheduler": "warp"}, "scheduler"),
    ({"sampler": "euler", "scheduler": "PNDM"}, "scheduler"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"output_format": "gif"}, "output_format"),
    ({"steps": 20}, "steps"),
]


@pytest.mark.parametrize(("fields", "field"), BAD, ids=[f"{field}={str(b)[:30]}" for b, field in BAD])
def test_a_field_out_of_its_limit_is_named_with_value_and_limit(fields: dict[str, Any], field: str) -> None:
    client, service = fake_app()
    body = json.dumps({"prompt": "x", **fields})
    answer = client.post("/txt2img/", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["field"] == field
    assert error["limit"]
    assert "value" in error
    assert field in error["message"]
    assert len(answer.content) < 1000, "a long value is not echoed whole"
    assert service.requests == []


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 422),
        (b"", 422),
        (b"[]", 422),
        (b'"x"', 422),
        (b"\xff\xfe", 422),
        (b'{"prompt": "\\ud800"}', 422),
        (b"[" * 30_000, 400),
        (b'{"prompt": "' + b"x" * 100_000 + b'"}', 413),
    ],
    ids=["brace", "empty", "list", "string", "no utf-8", "lone surrogate", "deep", "large"],
)
def test_a_body_that_is_no_request_is_refused(content: bytes, status: int) -> None:
    client, service = fake_app()
    answer = client.post("/txt2img/", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert service.requests == []


def test_unknown_routes_and_methods_answer_in_the_same_shape() -> None:
    client, _ = fake_app()
    assert client.get("/nothing").json()["error"]["code"] == "http_error"
    assert client.get("/txt2img/").status_code == 405


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Overloaded(5), 429, "overloaded"),
        (NotReady("draining"), 503, "not_ready"),
        (GenerationFailed("the latents are not finite"), 500, "generation_failed"),
        (KeyError("a bug"), 500, "internal_error"),
    ],
)
def test_what_the_service_raises_becomes_its_status(error: Exception, status: int, code: str) -> None:
    client, service = fake_app()
    service.error = error
    answer = client.post("/txt2img/", json={"prompt": "x"})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers.get("retry-after") == ("5" if status == 429 else None)


def test_health_readiness_and_docs() -> None:
    client, service = fake_app()
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    service.missing = ["emoji"]
    waiting = client.get("/readyz")
    assert waiting.status_code == 503
    assert "emoji" in waiting.json()["error"]["message"]
    page = client.get("/docs").text
    assert "cdn" not in page
    assert "https://" not in page
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/txt2img/", "/healthz", "/readyz", "/v1/generate", "/v1/images/edits", "/sdapi/v1/img2img"} <= set(paths)
    assert set(paths["/txt2img/"]["post"]["responses"]) >= {"200", "400", "413", "422", "429", "500", "503"}


@pytest.mark.parametrize("name", ["sampler", "scheduler"])
def test_an_empty_name_is_the_models_default(name: str) -> None:
    client, service = fake_app()
    assert client.post("/txt2img/", json={"prompt": "x", name: ""}).status_code == 200
    body = {"prompt": "x", "scheduler": "", "sampler_name": "Euler"}
    assert client.post("/sdapi/v1/txt2img", json=body).status_code == 200
    assert [one.sampling.scheduler for one in service.requests] == ["automatic", "automatic"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"image": "%%"}, "image: must be base64 or a data URL of an image"),
        ({"image": "\u00e9"}, "image: must be base64 or a data URL of an image"),
        ({"image": 7}, "image: must be base64 text, got 7"),
        (
            {"image": base64.b64encode(b"no image").decode()},
            "image: must be a complete PNG, JPEG or WebP file, got '8 bytes'",
        ),
        ({"hires": 3}, "hires: must be an object, got 3"),
        ({"num_inference_steps": 0}, "num_inference_steps: must be at least 1, got 0"),
        ({"loras": {}}, "loras: must be a list"),
    ],
    ids=str,
)
def test_messages_are_the_same_words_on_every_way(body: dict[str, Any], message: str) -> None:
    client, _ = fake_app()
    answer = client.post("/v1/generate", json={"prompt": "x", **body})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"].startswith(message)
    answer = client.post("/v1/generate", json={"prompt": "x", "id": "no/slash"})
    assert answer.json()["error"]["message"].startswith("id: must match ")


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[" * 30_000, b'{"seed": ' + b"1" * 6000 + b"}"])
def test_a_body_that_cannot_be_read_is_named(content: bytes) -> None:
    client, _ = fake_app()
    answer = client.post("/txt2img/", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["field"] == "body"
    assert "must be" in answer.json()["error"]["message"]
