"""The mixed workload: requests that are unlike in everything, the same in every run.

Steps uniform in 4..50; guidance 1 (a fifth of the requests), 4, 5, 7.5; six samplers; 64 px (a fifth), 128 px and
192 px (a fifth); prompts of 1 to 60 words.
"""

import random
from collections.abc import Sequence
from typing import Any

SCALES = (1.0, 4.0, 4.0, 5.0, 7.5)
SIZES = (64, 128, 128, 128, 192)
SAMPLERS = (
    ("euler", "automatic"),
    ("euler_a", "automatic"),
    ("ddim", "automatic"),
    ("dpmpp_2m", "karras"),
    ("unipc", "automatic"),
    ("pndm", "automatic"),
)
TEXT = (
    "red green blue yellow purple apple rocket cat face pizza house sunflower octopus guitar heart star moon tree fish "
    "bird crown clock camera balloon on with over under beside a the small large bright round old new background"
)


def draw_bodies(count: int, sizes: Sequence[int] = SIZES, seed: int = 0) -> list[dict[str, Any]]:
    """Unlike bodies of `POST /txt2img/`; the first ones of a longer list are those of a shorter one."""
    dice = random.Random(seed)
    return [draw_body(dice, sizes) for _ in range(count)]


def draw_body(dice: random.Random, sizes: Sequence[int]) -> dict[str, Any]:
    """One of them."""
    sampler, schedule = dice.choice(SAMPLERS)
    side = dice.choice(sizes)
    return {
        "prompt": " ".join(dice.choices(TEXT.split(), k=dice.randint(1, 60))),
        "num_inference_steps": dice.randint(4, 50),
        "guidance_scale": dice.choice(SCALES),
        "sampler": sampler,
        "scheduler": schedule,
        "width": side,
        "height": side,
        "seed": dice.randrange(2**32),
    }


def draw_staircase(side: int, count: int) -> list[dict[str, Any]]:
    """Requests of one size that finish one step after another: a batch of them has every width up to `count`."""
    steps = range(4, 4 + count)
    same = {"prompt": "red apple", "guidance_scale": 1.0, "width": side, "height": side, "seed": 0}
    return [{**same, "sampler": "euler", "scheduler": "automatic", "num_inference_steps": step} for step in steps]
