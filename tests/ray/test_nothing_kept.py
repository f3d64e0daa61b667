"""What callers send is written nowhere: not by us, nor by Serve, Ray or a library, whether a request works or fails."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from serve_app.api.keys import new_key
from tests.checkpoints import save_safety_checker
from tests.models.lora_files import save_lora
from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy
from tests.sample_images import photo

PROMPT, NEGATIVE, INFOTEXT = "xylographic-quokka", "unbelievable-narwhal", "incandescent-axolotl"
NATIVE = ("/txt2img/", "/v1/generate", "/v1/images/generations")
A1111 = ("/sdapi/v1/txt2img", "/sdapi/v1/img2img")
SETTLE_SECONDS = 2.0
"""Ray's logs are flushed by then."""


def marked_image(tmp_path: Path) -> bytes:
    """A file whose pixels and text are its own."""
    text, path = PngInfo(), tmp_path / "marked.png"
    text.add_text("parameters", INFOTEXT)
    photo(seed=99).save(path, pnginfo=text)
    return path.read_bytes()


def endless_lora(model: Path, tmp_path: Path) -> Path:
    """A LoRA whose images fail: their latents are not finite numbers."""
    path = save_lora(model, tmp_path / "endless.safetensors", 0, "diffusers")
    save_file({name: tensor * 1e30 for name, tensor in load_file(path).items()}, path)
    return path


def secrets_of(image: bytes, key: str, links: list[str]) -> dict[str, list[bytes]]:
    """What must not be found, in the forms in which it was sent or answered."""
    middle = image[len(image) // 2 :]
    signatures = [link.rpartition("signature=")[2] for link in links]
    return {
        "prompt": [PROMPT.encode(), PROMPT.encode("utf-16-be")],
        "negative prompt": [NEGATIVE.encode()],
        "image": [INFOTEXT.encode(), middle[:24], base64.b64encode(image)[600:640]],
        "key": [key.encode(), base64.b64encode(f"me:{key}".encode())],
        "link": [signature.encode() for signature in signatures],
    }


def find_kept(session: Path, secrets: dict[str, list[bytes]]) -> set[tuple[str, str]]:
    """Which of them is in which file of the session."""
    found: set[tuple[str, str]] = set()
    for path in session.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with suppress(OSError):
                content = path.read_bytes()
                found |= {(name, path.name) for name, forms in secrets.items() if any(one in content for one in forms)}
    return found


def bodies(image: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests to every API: those that work, and those that fail in each way."""
    both = {"prompt": PROMPT, "negative_prompt": NEGATIVE}
    for path in NATIVE:
        yield path, both
        yield path, {**both, "model": "refuse"}
        yield path, {**both, "model": PROMPT}
        yield path, {**both, "num_inference_steps": PROMPT}
        yield path, {**both, PROMPT: NEGATIVE}
        yield path, {"prompt": [PROMPT]}
        yield path, {"prompt": f"\ud800{PROMPT}\0", "negative_prompt": NEGATIVE * 200}
        yield path, {**both, "prompt": f"(({PROMPT}:1e999) BREAK " * 4}
    for path in NATIVE[:2]:
        yield path, {**both, "image": image, "strength": 0.5}
        yield path, {**both, "image": f"{PROMPT}!"}
        yield path, {**both, "image": image[:400], "mask": image}
        yield path, {**both, "loras": [{"name": "endless"}]}
        yield path, {**both, "loras": [{"name": PROMPT}]}
        yield path, {**both, "sampler": "lcm", "num_inference_steps": 100}
    for path in A1111:
        more = {"init_images": [image]} if path.endswith("img2img") else {}
        yield path, {**both, **more}
        yield path, {**both, **more, "override_settings": {"sd_model_checkpoint": "refuse"}}
        yield path, {**both, **more, "steps": PROMPT, "styles": [PROMPT]}
        yield path, {**both, **more, "sampler_name": PROMPT}
    yield "/sdapi/v1/png-info", {"image": image}
    yield "/sdapi/v1/extra-single-image", {"image": image}
    yield "/v1/presets/none", {"variables": {PROMPT: NEGATIVE}}


def send_all(client: httpx.Client, image: bytes) -> list[str]:
    """Every request; returns the links of images that were stored."""
    statuses: set[int] = set()

    for path, body in bodies(base64.b64encode(image).decode()):
        for accept in ("*/*", "text/event-stream"):
            answer = client.post(
                path, content=json.dumps(body), headers={"Accept": accept, "Content-Type": "application/json"}
            )
            assert answer.status_code < 500 or answer.headers["x-error"] == "generation_failed", (path, str(body)[:300])
            statuses.add(answer.status_code)
    assert statuses >= {200, 400, 422, 500}
    statuses.add(client.post("/txt2img/", content=f'{{"prompt": "{PROMPT}'.encode()).status_code)
    file = ("marked.png", image, "image/png")
    for path in ("/v1/images/edits", "/v1/images/variations"):
        assert client.post(path, files={"image": file}, data={"prompt": PROMPT}).status_code == 200
    slow = {"prompt": PROMPT, "num_inference_steps": 140, "sampler": "heun"}
    with suppress(httpx.ReadTimeout):
        client.post("/txt2img/", json=slow, timeout=0.2)
    linked = client.post("/v1/images/generations", json={"prompt": PROMPT, "response_format": "url"})
    links = [one["url"] for one in linked.json()["data"]]
    assert [client.get(link).status_code for link in links] == [200]
    return links


def test_what_callers_send_is_in_no_file_unless_the_operator_asks(
    deploy: Deploy, tiny_sd: Path, tmp_path: Path, ray_logs: Path
) -> None:
    key, entry = new_key("me")
    (tmp_path / "keys.json").write_text(f"[{entry}]")
    lora = endless_lora(tiny_sd, tmp_path)
    ingress: dict[str, Any] = {"keys": {"file": str(tmp_path / "keys.json")}}
    sections: dict[str, Any] = {
        "models": {name: tiny_model(tiny_sd, loras={"endless": str(lora)}) for name in ("open", "refuse")},
        "settings": {"refuse": {"safety": "refuse"}},
        "safety": {"checker": str(save_safety_checker(tmp_path, flags=True)), "device": "cpu"},
        "args": {"safety": {"num_cpus": 0.5}},
    }
    client = deploy(application(**sections, ingress=ingress))
    client.headers["Authorization"] = f"Bearer {key}"
    image = marked_image(tmp_path)
    links = send_all(client, image)
    assert client.get("/v1/models", auth=("me", key)).status_code == 200
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}x"}).status_code == 401
    time.sleep(SETTLE_SECONDS)
    secrets = secrets_of(image, key, links)
    assert find_kept(ray_logs.parent, secrets) == set()
    deploy(application(**sections, ingress={**ingress, "logs": {"prompts": True}}))
    client.post("/txt2img/", json={"prompt": PROMPT, "negative_prompt": NEGATIVE})
    time.sleep(SETTLE_SECONDS)
    assert {name for name, _ in find_kept(ray_logs.parent, secrets)} == {"prompt", "negative prompt"}
