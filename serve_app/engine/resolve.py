"""From what a caller said to a `GenerationRequest`: defaults filled in, limits held, the seed drawn. No torch."""

import math
import random
from dataclasses import dataclass

from serve_app.config import Limits, ModelConfig
from serve_app.diffusion.samplers import check_pair
from serve_app.engine.request import MEDIA_TYPES, GenerationRequest, ImageFormat, OutputSpec
from serve_app.errors import InvalidRequest, UnknownName

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Wish:
    """What a caller asked for; None is "as the model's config says"."""

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    seed: int | None = None
    output_format: ImageFormat = "png"


def resolve(wish: Wish, model: str, config: ModelConfig) -> GenerationRequest:
    """Decide everything; raises InvalidRequest or UnknownName naming field, value and limit."""
    defaults, limits = config.defaults, config.limits
    negative_prompt = defaults.negative_prompt if wish.negative_prompt is None else wish.negative_prompt
    width = config.native_size if wish.width is None else wish.width
    height = config.native_size if wish.height is None else wish.height
    steps = defaults.num_inference_steps if wish.num_inference_steps is None else wish.num_inference_steps
    guidance_scale = defaults.guidance_scale if wish.guidance_scale is None else wish.guidance_scale
    sampler = wish.sampler or defaults.sampler
    schedule = wish.scheduler or (defaults.scheduler if wish.sampler in (None, defaults.sampler) else "automatic")
    check_prompts(wish.prompt, negative_prompt, limits)
    check_size(width, height, limits)
    _within("num_inference_steps", steps, 1, limits.max_num_inference_steps)
    _within("guidance_scale", guidance_scale, limits.min_guidance_scale, limits.max_guidance_scale)
    check_pair(sampler, schedule)
    if wish.output_format not in MEDIA_TYPES:
        raise UnknownName("output_format", wish.output_format, f"must be one of {', '.join(MEDIA_TYPES)}")
    seed = random.SystemRandom().randint(0, MAX_SEED) if wish.seed is None else wish.seed
    _within("seed", seed, 0, MAX_SEED)
    drawn_width, drawn_height = drawn_size(width, height, config)
    return GenerationRequest(
        model=model,
        prompt=wish.prompt,
        negative_prompt=negative_prompt,
        width=drawn_width,
        height=drawn_height,
        num_inference_steps=steps,
        guidance_scale=float(guidance_scale),
        sampler=sampler,
        schedule=schedule,
        seed=seed,
        output=OutputSpec(width, height, wish.output_format),
    )


def drawn_size(width: int, height: int, config: ModelConfig) -> tuple[int, int]:
    """The size to denoise at: as asked up to the model's native area, else that area with the asked aspect ratio."""
    native, multiple = config.native_size, config.limits.size_multiple
    if width * height <= native * native:
        return width, height
    blocks = native / math.sqrt(width * height) / multiple
    return max(1, round(width * blocks)) * multiple, max(1, round(height * blocks)) * multiple


def check_prompts(prompt: str, negative_prompt: str, limits: Limits) -> None:
    """Refuse an empty prompt, and either prompt where it is too long or no text."""
    if not prompt.strip():
        raise InvalidRequest("prompt", prompt, "must not be empty")
    for field, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if len(text) > limits.max_prompt_characters:
            raise InvalidRequest(field, text, f"must be at most {limits.max_prompt_characters} characters")
        if any(0xD800 <= ord(char) <= 0xDFFF or char == "\0" for char in text):
            raise InvalidRequest(field, ascii(text), "must be valid Unicode text without NUL")


def check_size(width: int, height: int, limits: Limits) -> None:
    """Hold both sides and their product to the limits."""
    for field, side in (("width", width), ("height", height)):
        _within(field, side, limits.min_side, limits.max_side)
        if side % limits.size_multiple:
            raise InvalidRequest(field, side, f"must be a multiple of {limits.size_multiple}")
    if width * height > limits.max_pixels:
        raise InvalidRequest("width", f"{width}x{height}", f"times height must be at most {limits.max_pixels} pixels")


def _within(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidRequest(field, value, f"must be between {low:g} and {high:.10g}")
