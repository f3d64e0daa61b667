"""From parameters as given to decided requests: defaults filled in, limits held, seeds drawn."""

import random
import re
from collections.abc import Iterable
from dataclasses import replace

from serve_app.errors import InvalidRequest, UnknownName
from serve_app.requests.capabilities import Limits, ModelCapabilities
from serve_app.requests.image_files import MEDIA_TYPES, OutputSpec, find_format
from serve_app.requests.params import GenerationParams, LoraWeight, SamplingParams
from serve_app.requests.request import GenerationRequest, Variation
from serve_app.requests.samplers import read_names
from serve_app.requests.sizes import check_range, resolve_sizes

MAX_SEED = 2**32 - 1
LARGEST_DRAWN_SEED = MAX_SEED - 1000
"""A seed that is not given leaves room for those of further images."""
LORA_TAG = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?>")


def resolve(params: GenerationParams, name: str, model: ModelCapabilities) -> list[GenerationRequest]:
    """Decide every image of a request to the model called `name`.

    Image i has seed + i; with a variation, the same seed and subseed + i.

    Raises:
        InvalidRequest: names the field, its value and what is allowed.
        UnknownName: likewise, for a name that the model does not know.
    """
    check_range("num_images", params.num_images, 1, model.limits.max_images)
    first = _resolve_first(params, name, model)
    last_seed = MAX_SEED - params.num_images + 1
    if first.variation is None:
        check_range("seed", first.seed, 0, last_seed)
        return [replace(first, seed=first.seed + index) for index in range(params.num_images)]
    check_range("subseed", first.variation.seed, 0, last_seed)
    variations = [replace(first.variation, seed=first.variation.seed + index) for index in range(params.num_images)]
    return [replace(first, variation=variation) for variation in variations]


def _resolve_first(params: GenerationParams, name: str, model: ModelCapabilities) -> GenerationRequest:
    sampling = resolve_sampling(params, model)
    output_format = find_format(params.output_format)
    if output_format is None:
        raise UnknownName("output_format", params.output_format, f"must be one of {', '.join(MEDIA_TYPES)}")
    check_prompts(params.prompt, sampling.negative_prompt, model.limits, may_be_empty=params.image is not None)
    prompt, tagged = read_lora_tags(params.prompt) if sampling.prompt_syntax == "a1111" else (params.prompt, ())
    request = GenerationRequest(
        model=name,
        prompt=prompt,
        sampling=sampling,
        width=0,
        height=0,
        seed=draw_seed("seed", params.seed),
        output=OutputSpec(width=0, height=0, format=output_format, quality=params.quality, ai_mark=model.ai_mark),
        max_prompt_chunks=model.limits.max_prompt_chunks,
        loras=check_loras((*params.loras, *tagged), model),
        variation=resolve_variation(params),
    )
    return resolve_sizes(request, params, model)


def resolve_sampling(params: GenerationParams, model: ModelCapabilities) -> SamplingParams:
    """The sampling parameters as given, else the model's defaults, within the model's limits."""
    given = params.sampling
    if given.keys() & {"sampler", "scheduler"}:
        given |= read_names(given.get("sampler"), given.get("scheduler"))
    if "scheduler" not in given and given.get("sampler", model.defaults.sampler) != model.defaults.sampler:
        given["scheduler"] = "automatic"
    sampling = model.defaults.model_copy(update=given)
    limits = model.limits
    check_sampler(sampling.sampler, sampling.scheduler, model)
    check_range("num_inference_steps", sampling.num_inference_steps, 1, limits.max_num_inference_steps)
    check_range("guidance_scale", sampling.guidance_scale, limits.min_guidance_scale, limits.max_guidance_scale)
    check_range("guidance_end", sampling.guidance_end, sampling.guidance_start, 1)
    check_range("clip_skip", sampling.clip_skip, 0, model.max_clip_skip)
    return sampling


def check_sampler(sampler: str, scheduler: str, model: ModelCapabilities) -> None:
    """Refuse a sampler that the model cannot follow, and a schedule that the sampler cannot follow."""
    check_choice("sampler", sampler, model.samplers)
    allowed = model.samplers[sampler]
    if scheduler not in allowed:
        raise UnknownName("scheduler", scheduler, f"must be one of {', '.join(allowed)} for sampler {sampler}")


def check_choice(field: str, value: str, known: Iterable[str]) -> None:
    """Refuse a name that is none of `known`."""
    names = tuple(known)
    if value not in names:
        allowed = f"one of {', '.join(names)}" if names else "left out: none is configured"
        raise UnknownName(field, value, f"must be {allowed}")


def check_prompts(prompt: str, negative_prompt: str, limits: Limits, may_be_empty: bool = False) -> None:
    """Refuse an empty prompt unless it may be, and either prompt where it is too long or not valid text."""
    if not may_be_empty and not prompt.strip():
        raise InvalidRequest("prompt", prompt, "must not be empty")
    for field, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if len(text) > limits.max_prompt_characters:
            raise InvalidRequest(field, text, f"must be at most {limits.max_prompt_characters} characters")
        if any(0xD800 <= ord(char) <= 0xDFFF or char == "\0" for char in text):
            raise InvalidRequest(field, ascii(text), "must be valid Unicode text without NUL")


def draw_seed(field: str, seed: int | None) -> int:
    """The seed as given, or a random one."""
    if seed is None:
        return random.SystemRandom().randint(0, LARGEST_DRAWN_SEED)
    check_range(field, seed, 0, MAX_SEED)
    return seed


def resolve_variation(params: GenerationParams) -> Variation | None:
    """None where the strength is 0."""
    if not params.subseed_strength:
        return None
    return Variation(seed=draw_seed("subseed", params.subseed), strength=params.subseed_strength)


def read_lora_tags(prompt: str) -> tuple[str, tuple[LoraWeight, ...]]:
    """The prompt without its `<lora:name:weight>` tags, and the LoRAs they name. A missing weight is 1."""
    found = []
    for name, weight in LORA_TAG.findall(prompt):
        try:
            found.append(LoraWeight(name=name, weight=float(weight or 1)))
        except ValueError as error:
            raise InvalidRequest(
                "prompt", f"<lora:{name}:{weight}>", "must have a number as the LoRA's weight"
            ) from error
    return (LORA_TAG.sub("", prompt), tuple(found)) if found else (prompt, ())


def check_loras(loras: tuple[LoraWeight, ...], model: ModelCapabilities) -> tuple[LoraWeight, ...]:
    """Refuse unknown LoRAs, weights out of range, and too many."""
    limits = model.limits
    check_range("loras", len(loras), 0, limits.max_loras)
    for lora in loras:
        check_choice("loras", lora.name, model.loras)
        check_range(f"loras.{lora.name}.weight", lora.weight, -limits.max_lora_weight, limits.max_lora_weight)
    return loras
