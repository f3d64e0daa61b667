"""Requests that differ in everything."""

from serve_app.config import ModelConfig
from serve_app.engine.engine import Engine
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import GenerationRequest
from serve_app.requests.resolve import resolve
from serve_app.requests.samplers import SAMPLERS
from tests.conftest import tiny_capabilities

SCALES = (1.0, 3.0, 7.5, 0.0)


def request(config: ModelConfig | Engine, prompt: str = "a cat", **params: object) -> GenerationRequest:
    """One request, resolved."""
    model = config.config if isinstance(config, Engine) else config
    given = GenerationParams.checked(prompt=prompt, **{"seed": 0, **params})
    return resolve(given, "tiny", tiny_capabilities(model))[0]


def unlike_requests(config: ModelConfig, **params: object) -> list[GenerationRequest]:
    """One for each sampler, with unlike steps, guidance, prompts and seeds; some have no unconditional row."""
    return [
        request(
            config,
            f"picture {index} of a cat",
            negative_prompt="dog" if index % 2 else "",
            num_inference_steps=3 + index % 5,
            guidance_scale=SCALES[index % len(SCALES)],
            sampler=sampler,
            seed=index,
            **params,
        )
        for index, sampler in enumerate(SAMPLERS)
    ]
