"""From a `GenerationParams` to `GenerationRequest`s: defaults filled in, limits held, seeds drawn. No torch."""

import random
import re
from dataclasses import replace

from serve_app.config import ModelConfig
from serve_app.errors import InvalidRequest
from serve_app.requests.checks import check_choice, check_prompts, check_range
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import MEDIA_TYPES, GenerationRequest, Guidance, LoraChoice, OutputSpec, Variation
from serve_app.requests.samplers import check_pair
from serve_app.requests.sizes import resolve_sizes

MAX_SEED = 2**32 - 1
LORA_TAG = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?>")


def resolve(wish: GenerationParams, model: str, config: ModelConfig) -> GenerationRequest:
    """Decide one image; raises InvalidRequest or UnknownName naming field, value and limit."""
    if wish.num_images != 1:
        raise InvalidRequest("num_images", wish.num_images, "must be 1 here")
    return resolve_all(wish, model, config)[0]


def resolve_all(wish: GenerationParams, model: str, config: ModelConfig) -> list[GenerationRequest]:
    """Decide all images of a wish: image i has seed + i, or with a variation the seed and subseed + i."""
    check_range("num_images", wish.num_images, 1, config.limits.max_images)
    first = _resolve_first(wish, model, config)
    last_seed = MAX_SEED - wish.num_images + 1
    if first.variation is None:
        check_range("seed", first.seed, 0, last_seed)
        return [replace(first, seed=first.seed + index) for index in range(wish.num_images)]
    check_range("subseed", first.variation.seed, 0, last_seed)
    variations = [replace(first.variation, seed=first.variation.seed + index) for index in range(wish.num_images)]
    return [replace(first, variation=variation) for variation in variations]


def _resolve_first(wish: GenerationParams, model: str, config: ModelConfig) -> GenerationRequest:
    defaults, limits = config.defaults, config.limits
    negative_prompt = defaults.negative_prompt if wish.negative_prompt is None else wish.negative_prompt
    steps = defaults.num_inference_steps if wish.num_inference_steps is None else wish.num_inference_steps
    sampler = wish.sampler or defaults.sampler
    schedule = wish.scheduler or (defaults.scheduler if wish.sampler in (None, defaults.sampler) else "automatic")
    syntax = wish.prompt_syntax or defaults.prompt_syntax
    check_prompts(wish.prompt, negative_prompt, limits, may_be_empty=wish.image is not None)
    check_range("num_inference_steps", steps, 1, limits.max_num_inference_steps)
    check_pair(sampler, schedule)
    check_choice("output_format", wish.output_format, MEDIA_TYPES)
    check_choice("prompt_syntax", syntax, ("a1111", "plain"))
    check_range("quality", wish.quality, 1, 100)
    clip_skip = defaults.clip_skip if wish.clip_skip is None else wish.clip_skip
    check_range("clip_skip", clip_skip, 0, 11)
    prompt, tagged = read_lora_tags(wish.prompt) if syntax == "a1111" else (wish.prompt, ())
    request = GenerationRequest(
        model=model,
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=0,
        height=0,
        num_inference_steps=steps,
        guidance=resolve_guidance(wish, config),
        sampler=sampler,
        schedule=schedule,
        seed=draw_seed("seed", wish.seed),
        output=OutputSpec(0, 0, wish.output_format, wish.quality, ai_mark=config.ai_mark),
        prompt_syntax=syntax,
        clip_skip=clip_skip,
        loras=check_loras((*wish.loras, *tagged), config),
        variation=resolve_variation(wish),
    )
    return resolve_sizes(request, wish, config)


def resolve_guidance(wish: GenerationParams, config: ModelConfig) -> Guidance:
    """Scale, rescale and interval within their limits."""
    scale = config.defaults.guidance_scale if wish.guidance_scale is None else wish.guidance_scale
    check_range("guidance_scale", scale, config.limits.min_guidance_scale, config.limits.max_guidance_scale)
    check_range("guidance_rescale", wish.guidance_rescale, 0, 1)
    check_range("guidance_start", wish.guidance_start, 0, 1)
    check_range("guidance_end", wish.guidance_end, wish.guidance_start, 1)
    return Guidance(float(scale), wish.guidance_rescale, wish.guidance_start, wish.guidance_end)


def draw_seed(field: str, seed: int | None) -> int:
    """The seed as given, or a random one."""
    if seed is None:
        return random.SystemRandom().randint(0, MAX_SEED - 1000)
    check_range(field, seed, 0, MAX_SEED)
    return seed


def resolve_variation(wish: GenerationParams) -> Variation | None:
    """None where the strength is 0."""
    check_range("subseed_strength", wish.subseed_strength, 0, 1)
    return Variation(draw_seed("subseed", wish.subseed), wish.subseed_strength) if wish.subseed_strength else None


def read_lora_tags(prompt: str) -> tuple[str, tuple[LoraChoice, ...]]:
    """Take `<lora:name:weight>` out of the prompt; the weight is 1 where it is left out."""
    found = []
    for name, weight in LORA_TAG.findall(prompt):
        try:
            found.append(LoraChoice(name, float(weight or 1)))
        except ValueError as error:
            raise InvalidRequest("prompt", f"<lora:{name}:{weight}>", "must have a number for a weight") from error
    return (LORA_TAG.sub("", prompt), tuple(found)) if found else (prompt, ())


def check_loras(loras: tuple[LoraChoice, ...], config: ModelConfig) -> tuple[LoraChoice, ...]:
    """Refuse unknown names, weights out of range, and too many."""
    check_range("loras", len(loras), 0, config.limits.max_loras)
    limit = config.limits.max_lora_weight
    for lora in loras:
        check_choice("loras", lora.name, config.loras)
        check_range(f"loras.{lora.name}.weight", lora.weight, -limit, limit)
    return loras
