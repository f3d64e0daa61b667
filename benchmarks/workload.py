"""The mixed workload: requests that are unlike in everything, the same in every run."""

import random
from collections import defaultdict
from collections.abc import Sequence

from serve_app.config import ModelConfig
from serve_app.diffusion.samplers import SAMPLERS
from serve_app.diffusion.tables import SamplerTables
from serve_app.engine.request import GenerationRequest
from serve_app.engine.resolve import resolve
from serve_app.engine.wish import Wish
from serve_app.models.family import ModelFamily

STEPS = (10, 20, 30, 40, 50)
SCALES = (1.0, 4.0, 7.5, 12.0)
NOUNS = ("red apple", "rocket", "cat face", "pizza", "house", "sunflower", "octopus", "guitar")
COLOURS = ("blue", "white", "green", "black", "pink", "orange")


def draw_requests(config: ModelConfig, count: int) -> list[GenerationRequest]:
    """Unlike requests, the same in every run."""
    dice = random.Random(0)
    return [
        resolve(
            Wish(
                prompt=f"{dice.choice(NOUNS)} on a {dice.choice(COLOURS)} background",
                num_inference_steps=dice.choice(STEPS),
                guidance_scale=dice.choice(SCALES),
                sampler=dice.choice(list(SAMPLERS)),
                seed=seed,
            ),
            "model",
            config,
        )
        for seed in range(count)
    ]


def rows_of(family: ModelFamily, requests: Sequence[GenerationRequest]) -> int:
    """UNet rows that the requests need from first to last step."""
    tables = SamplerTables(family.scheduler_config)
    return sum(
        tables.table(r.sampler, r.schedule, r.num_inference_steps).num_model_calls * (2 if r.guidance.scale > 1 else 1)
        for r in requests
    )


def equal_groups(requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
    """What a batcher that needs equal parameters can put together."""
    groups: dict[tuple[object, ...], list[GenerationRequest]] = defaultdict(list)
    for request in requests:
        groups[request.sampler, request.num_inference_steps, request.guidance.scale].append(request)
    return list(groups.values())
