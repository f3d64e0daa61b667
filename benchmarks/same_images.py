"""Draw 50 unlike requests and compare every pixel with those of another commit.

Run it once against a server of each commit, on one machine, with `engine: {deterministic: true}` in the model's config
(CPUs differ in the last bits):

    python benchmarks/same_images.py draw http://127.0.0.1:8000 before/
    python benchmarks/same_images.py draw http://127.0.0.1:8000 after/
    python benchmarks/same_images.py compare before/ after/

It speaks HTTP only, so it does not depend on the vocabulary of either commit.
"""

import argparse
import base64
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

PROMPTS = ("red apple on a blue background", "rocket on a black background", "(cat face:1.3) on a [pink] background")
SAMPLERS = (
    *("euler", "euler_a", "ddim", "ddpm", "pndm", "lms", "heun", "dpm2", "dpm2_a"),
    *("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_2s", "unipc", "deis", "lcm", "tcd"),
)
NUM_REQUESTS = 50
TOGETHER = 10
"""Requests in flight at once, so that unlike rows share batches."""
LONG_PROMPTS = (11, 12)
"""Features whose prompts have several chunks. They are drawn alone: a prompt padded to a longer neighbour differs
in the last bits, so an image would depend on which requests met."""


def image_file(mode: str, seed: int) -> str:
    """A 128 x 128 PNG of soft random colours (`RGB`) or with a white right half (`L`), base64."""
    if mode == "L":
        image = Image.new("L", (128, 128), 0)
        image.paste(255, (64, 0, 128, 128))
    else:
        colours = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(colours).resize((128, 128), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def feature(index: int) -> dict[str, Any]:
    """The feature that request `index` has besides its sampler, steps, guidance and size."""
    image = {"image": image_file("RGB", index)}
    features: tuple[dict[str, Any], ...] = (
        {},
        {"negative_prompt": "blurry", "guidance_rescale": 0.7},
        {"guidance_start": 0.2, "guidance_end": 0.8},
        {"subseed": 7, "subseed_strength": 0.4},
        {"width": 64, "height": 96},
        {"width": 256, "height": 192},
        {**image, "strength": 0.6},
        {**image, "mask": image_file("L", 0)},
        {"hires": {"scale": 1.5, "strength": 0.6, "upscaler": "latent"}},
        {"hires": {"scale": 1.5, "strength": 0.6, "num_inference_steps": 6}},
        {"clip_skip": 1},
        {"prompt": "sunflower BREAK on a purple background", "scheduler": "karras", "sampler": "euler"},
        {"prompt": " ".join(["pizza on a green background"] * 20)},
    )
    return features[index % len(features)]


def request(index: int) -> dict[str, Any]:
    """The body of request `index`."""
    return {
        "prompt": PROMPTS[index % len(PROMPTS)],
        "seed": 1000 + index,
        "sampler": SAMPLERS[index % len(SAMPLERS)],
        "num_inference_steps": 4 + index % 9,
        "guidance_scale": (1.0, 3.0, 7.5)[index % 3],
        **feature(index),
    }


def post(client: httpx.Client, index: int) -> httpx.Response:
    """The answer to request `index`."""
    return client.post("/txt2img/", json=request(index))


def draw(url: str, folder: Path) -> None:
    """Write `00.png` to `49.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    alone = [index for index in range(NUM_REQUESTS) if index % 13 in LONG_PROMPTS]
    together = [index for index in range(NUM_REQUESTS) if index not in alone]
    with httpx.Client(base_url=url, timeout=600) as client, ThreadPoolExecutor(TOGETHER) as pool:
        answers = dict(zip(together, pool.map(partial(post, client), together), strict=True))
        answers |= {index: post(client, index) for index in alone}
    for index, answer in answers.items():
        if answer.status_code != 200:
            sys.exit(f"request {index}: {answer.status_code} {answer.text}")
        (folder / f"{index:02}.png").write_bytes(answer.content)


def compare(before: Path, after: Path) -> None:
    """Exit with 1 where any pixel differs."""
    names = sorted(path.name for path in before.glob("*.png"))
    if not names or names != sorted(path.name for path in after.glob("*.png")):
        sys.exit("the folders do not hold the same files")
    pairs = [(np.asarray(Image.open(before / name)), np.asarray(Image.open(after / name))) for name in names]
    unlike = [name for name, (one, other) in zip(names, pairs, strict=True) if not np.array_equal(one, other)]
    print(f"{len(names)} images, {len(unlike)} differ", *unlike)
    sys.exit(bool(unlike))


def main() -> None:
    """Draw, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    drawing = commands.add_parser("draw", help="draw the images into a folder")
    drawing.add_argument("url")
    drawing.add_argument("folder", type=Path)
    drawing.set_defaults(run=draw)
    comparing = commands.add_parser("compare", help="compare two folders pixel by pixel")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.set_defaults(run=compare)
    arguments = vars(parser.parse_args())
    arguments.pop("run")(**arguments)


if __name__ == "__main__":
    main()
