"""Nothing but the modules: what any server's overhead is measured against."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from timing import TimedFamily, TimedOrder
from workload import draw_requests

from serve_app.config import ModelConfig
from serve_app.engine.engine import Engine
from serve_app.models.cpu_threads import claim_cores, run_apart
from serve_app.models.denoisers.choose_executor import torch_cores
from serve_app.models.load_family import load_family
from serve_app.models.model_family import DenoisingBatch, ModelFamily, Prompt
from serve_app.requests.capabilities import ModelCapabilities


@cache
def load_once(model: str) -> ModelFamily:
    """The family of a model config in JSON, loaded at the first call in this process."""
    return load_family(ModelConfig.model_validate_json(model))


def draw_bare(model: Mapping[str, Any], body: Mapping[str, Any]) -> float:
    """Seconds of the body's UNet calls and its decode, in a loop, with the cores an engine would give them."""
    family = run_apart(lambda: load_once(json.dumps(model)))
    return run_apart(lambda: _draw(family, model, body))


def _draw(family: ModelFamily, model: Mapping[str, Any], body: Mapping[str, Any]) -> float:
    claim_cores(family.device, torch_cores(ModelConfig.model_validate(model)))
    factor = family.autoencoder.scale_factor
    rows = 2 if body["guidance_scale"] > 1 else 1
    with torch.inference_mode():
        states = family.encode([family.tokenize(Prompt(body["prompt"]))]) * rows
        shape = (rows, family.autoencoder.latent_channels, body["height"] // factor, body["width"] // factor)
        timesteps, scales = (torch.full((rows,), value, device=family.device) for value in (500.0, 1.0))
        batch = DenoisingBatch(torch.randn(shape, device=family.device), timesteps, scales, states)
        family.predict(batch)
        family.autoencoder.decode(batch.latents[:1])
        start = time.perf_counter()
        for _ in range(body["num_inference_steps"]):
            family.predict(batch)
        family.autoencoder.decode(batch.latents[:1])
        return time.perf_counter() - start


@dataclass(frozen=True)
class Profile:
    """A saturated engine: `busy` seconds from step to step, and what the model's own calls took of them, by name."""

    busy: float
    seconds: Mapping[str, float]

    @property
    def step_over_calls(self) -> float:
        """A step's time over the bare calls in it."""
        return self.busy / sum(self.seconds.values())


def profile_engine(model: Mapping[str, Any], count: int, rows: int = 16) -> Profile:
    """`count` unlike requests of 128 px in flight at once, in batches of `rows`."""
    config = ModelConfig.model_validate({**model, "engine": {"max_rows": rows}})
    timed: Any = TimedFamily(run_apart(lambda: load_family(config)))
    order = TimedOrder(lambda _: rows, lambda *_: 0.0)
    requests = draw_requests(ModelCapabilities(native_size=config.native_size), count, (128,))
    with Engine(timed, config, order) as engine:
        run_apart(lambda: [engine.table(request) for request in requests])
        for future in [engine.submit(request) for request in requests[:4]]:
            future.result()
        timed.seconds.clear()
        order.busy = 0.0
        for future in [engine.submit(request) for request in requests]:
            future.result()
    return Profile(order.busy, dict(timed.seconds))


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Of two things measured in turns: the median of the pairs' ratios."""
    return statistics.median(one / other for one, other in zip(numerators, denominators, strict=True))
