"""Sizes and given images of a request: what to draw at which size, and what was sent brought to it. No torch."""

import math
from dataclasses import dataclass, replace

from PIL import Image

from serve_app.config import ModelConfig
from serve_app.errors import InvalidRequest
from serve_app.requests.checks import check_choice, check_range, check_size
from serve_app.requests.input_images import RESIZE_MODES, fit, read_picture, to_mask, to_raster
from serve_app.requests.params import GenerationParams, HiresParams
from serve_app.requests.request import GenerationRequest, Hires, InitImage, kept_steps


@dataclass(frozen=True)
class _Sent:
    """The images of a wish, decoded."""

    picture: Image.Image
    mask: Image.Image | None


def resolve_sizes(request: GenerationRequest, wish: GenerationParams, config: ModelConfig) -> GenerationRequest:
    """Decide every size, and bring what was sent to the size that is drawn."""
    sent = _read(wish, config)
    width, height = asked_size(wish, sent.picture if sent else None, config)
    check_size(width, height, config.limits)
    drawn_width, drawn_height = drawn_size(width, height, config)
    hires = resolve_hires(wish.hires, width, height, request.num_inference_steps, config) if wish.hires else None
    if hires and sent:
        raise InvalidRequest("hires", "an image as well", "must be left out where an image is given")
    return replace(
        request,
        width=drawn_width,
        height=drawn_height,
        init=_resolve_init(wish, sent, drawn_width, drawn_height, request.num_inference_steps) if sent else None,
        hires=hires,
        output=replace(request.output, width=hires.width if hires else width, height=hires.height if hires else height),
    )


def _read(wish: GenerationParams, config: ModelConfig) -> _Sent | None:
    check_choice("resize_mode", wish.resize_mode, RESIZE_MODES)
    if wish.image is None:
        for field, value in (("mask", wish.mask), ("strength", wish.strength)):
            if value is not None:
                raise InvalidRequest(field, "given", "must come with an image")
        return None
    picture = read_picture("image", wish.image, config.limits)
    mask = read_picture("mask", wish.mask, config.limits) if wish.mask is not None else None
    if mask is not None and mask.size != picture.size:
        size = f"{picture.width}x{picture.height}"
        raise InvalidRequest("mask", f"{mask.width}x{mask.height}", f"must have the image's size, {size}")
    return _Sent(picture, mask)


def _resolve_init(wish: GenerationParams, sent: _Sent, width: int, height: int, steps: int) -> InitImage:
    strength = (0.8 if sent.mask is None else 1.0) if wish.strength is None else wish.strength
    check_strength("strength", strength, steps)
    mask = to_mask(fit(sent.mask, width, height, wish.resize_mode)) if sent.mask else None
    return InitImage(to_raster(fit(sent.picture, width, height, wish.resize_mode)), float(strength), mask)


def check_strength(field: str, strength: float, steps: int) -> None:
    """Refuse a strength outside 0..1, and one that leaves no step."""
    check_range(field, strength, 0, 1)
    if kept_steps(steps, strength) < 1:
        raise InvalidRequest(field, strength, f"must leave at least one of {steps} steps: {1 / steps:.4g} or more")


def asked_size(wish: GenerationParams, picture: Image.Image | None, config: ModelConfig) -> tuple[int, int]:
    """The file's size in pixels: as asked; else the picture's, within the native area; else the native square."""
    native, multiple = config.native_size, config.limits.size_multiple
    if picture is None or wish.width is not None or wish.height is not None:
        return native if wish.width is None else wish.width, native if wish.height is None else wish.height
    scale = min(1.0, native / math.sqrt(picture.width * picture.height))
    smallest = -(-config.limits.min_side // multiple) * multiple
    width, height = (max(smallest, int(side * scale) // multiple * multiple) for side in picture.size)
    return width, height


def drawn_size(width: int, height: int, config: ModelConfig) -> tuple[int, int]:
    """The size to denoise at: as asked up to the model's native area, else that area with the asked aspect ratio."""
    native, multiple = config.native_size, config.limits.size_multiple
    if width * height <= native * native:
        return width, height
    blocks = native / math.sqrt(width * height) / multiple
    return max(1, round(width * blocks)) * multiple, max(1, round(height * blocks)) * multiple


def resolve_hires(wish: HiresParams, width: int, height: int, steps: int, config: ModelConfig) -> Hires:
    """The second pass, within the same limits."""
    multiple = config.limits.size_multiple
    check_range("hires.scale", wish.scale, 1, 8)
    large_width, large_height = (
        round(drawn * wish.scale / multiple) * multiple if side is None else side
        for side, drawn in ((wish.width, width), (wish.height, height))
    )
    check_size(large_width, large_height, config.limits, "hires.")
    second = steps if wish.num_inference_steps is None else wish.num_inference_steps
    check_range("hires.num_inference_steps", second, 1, config.limits.max_num_inference_steps)
    check_strength("hires.strength", wish.strength, second)
    check_choice("hires.upscaler", wish.upscaler, ("lanczos", "latent"))
    return Hires(large_width, large_height, float(wish.strength), second, wish.upscaler)
