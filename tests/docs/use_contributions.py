"""Run in a copy of the tree with CONTRIBUTING's diffs applied: use what they add, and write what came of it as JSON.

python -m tests.docs.use_contributions OUT.json
"""

import base64
import io
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from serve_app.engine.engine import Engine
from serve_app.models.load_family import load_family
from serve_app.requests.events import GeneratedImage
from serve_app.requests.image_metadata import infotext_of
from serve_app.requests.params import GenerationParams
from serve_app.requests.resolve import resolve
from tests.api.fakes import fake_app
from tests.checkpoints import make_vae, save_stable_diffusion
from tests.conftest import tiny_config

STEPS = 4


def pixels(image: GeneratedImage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image.content)), dtype=np.int16)


def spread(image: GeneratedImage) -> float:
    """0 for an image of one colour."""
    return float(pixels(image).std())


def draw(engine: Engine, *params: GenerationParams) -> list[GeneratedImage]:
    """One image each, in one batch."""
    requests = [resolve(one, "tiny", engine.capabilities)[0] for one in params]
    return [future.result(60) for future in [engine.submit(request) for request in requests]]


def ask(**values: Any) -> GenerationParams:
    return GenerationParams(prompt="a red apple", num_inference_steps=STEPS, **values)


def use_sampler_and_row_value(folder: Path) -> dict[str, Any]:
    config = tiny_config(save_stable_diffusion(folder), deterministic=True, bucket_rows=2)
    with Engine(load_family(config), config) as engine:
        (new_sampler,) = draw(engine, ask(sampler="dpmpp_3m", seed=1))
        plain = draw(engine, ask(sampler="euler_a", seed=2), ask(sampler="euler_a", seed=3))
        half = draw(engine, ask(sampler="euler_a", seed=2, s_noise=0.5), ask(sampler="euler_a", seed=3))
    return {
        "sampler_spread": spread(new_sampler),
        "row_changed": bool((pixels(plain[0]) != pixels(half[0])).any()),
        "neighbour_changed": bool((pixels(plain[1]) != pixels(half[1])).any()),
    }


def use_family(folder: Path) -> dict[str, Any]:
    """A checkpoint like LDM3D's: the VAE has a channel of depth."""
    save_stable_diffusion(folder)
    make_vae(in_channels=4, out_channels=4).save_pretrained(folder / "vae")
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "StableDiffusionLDM3DPipeline"}))
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    config = tiny_config(folder)
    with Engine(load_family(config), config) as engine:
        drawn = draw(engine, ask(seed=1), ask(seed=1, image=buffer.getvalue(), strength=0.5))
    return {"family_spreads": [spread(image) for image in drawn], "family_shape": pixels(drawn[0]).shape}


def use_api() -> dict[str, Any]:
    client, service = fake_app(presets={"calm": {"prompt": "a {subject}", "s_noise": 0.25}})
    schema = client.get("/openapi.json").json()["components"]["schemas"]
    body = {"prompt": "x", "sampler": "DPM++ 3M", "s_noise": 0.5}
    text = infotext_of(client.post("/txt2img/", json=body).content)
    preset = client.post("/v1/presets/calm", json={"variables": {"subject": "fox"}})
    content = base64.b64decode(preset.json()["images"][0]["b64_json"])
    return {
        "sampler_labels": [one["name"] for one in client.get("/sdapi/v1/samplers").json()],
        "route_answer": client.get("/v1/samplers").json(),
        "openapi_fields": sorted(schema["GenerateBody"]["properties"]),
        "infotext": text,
        "preset_infotext": infotext_of(content),
        "asked": [getattr(request.sampling, "s_noise", None) for request in service.requests],
    }


def main() -> None:
    """Use all of it."""
    with TemporaryDirectory() as folder:
        found = use_api() | use_sampler_and_row_value(Path(folder) / "sd") | use_family(Path(folder) / "ldm3d")
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
