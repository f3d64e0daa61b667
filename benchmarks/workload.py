"""The mixed workload: requests that are unlike in everything, the same in every run.

Steps uniform in 4..50; guidance 1 (a fifth of the requests), 4, 5, 7.5; six samplers; 64 px (a fifth), 128 px and
192 px (a fifth); prompts of 1 to 60 words.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from serve_app.diffusion.tables import SamplerTables
from serve_app.models.model_family import ModelFamily
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import GenerationRequest
from serve_app.requests.resolve import resolve

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


def draw_requests(model: ModelCapabilities, count: int, sizes: Sequence[int]) -> list[GenerationRequest]:
    """The same, resolved for a library user."""
    return [resolve(GenerationParams(**body), "model", model)[0] for body in draw_bodies(count, sizes)]


def rows_of(family: ModelFamily, requests: Sequence[GenerationRequest]) -> int:
    """UNet rows that the requests need from first to last step."""
    tables = SamplerTables(family.scheduler_config)
    return sum(
        tables.table(r.sampling.sampler, r.sampling.scheduler, r.sampling.num_inference_steps).num_model_calls
        * (2 if r.sampling.guidance_scale > 1 else 1)
        for r in requests
    )


def equal_groups(requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
    """What a batcher that needs equal parameters can put together."""
    groups: dict[tuple[object, ...], list[GenerationRequest]] = defaultdict(list)
    for request in requests:
        groups[
            request.sampling.sampler,
            request.sampling.scheduler,
            request.sampling.num_inference_steps,
            request.sampling.guidance_scale,
        ].append(request)
    return list(groups.values())
