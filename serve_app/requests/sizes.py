"""The sizes of a request, and the images that come with it: what is denoised at which size, and fitted to it."""

import math
from dataclasses import dataclass, replace

from PIL import Image

from serve_app.errors import InvalidRequest
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.image_files import fit, read_image, to_mask, to_raster
from serve_app.requests.params import GenerationParams, HiresParams
from serve_app.requests.request import GenerationRequest, Hires, InitImage, kept_steps


@dataclass(frozen=True)
class _InputImages:
    """The images of a request, decoded."""

    image: Image.Image
    mask: Image.Image | None


def resolve_sizes(request: GenerationRequest, params: GenerationParams, model: ModelCapabilities) -> GenerationRequest:
    """The request with every size decided, and its images fitted to the size that is denoised."""
    images = _read_images(params, model)
    steps = request.sampling.num_inference_steps
    width, height = file_size(params, images.image if images else None, model)
    check_size(width, height, model)
    denoised_width, denoised_height = denoised_size(width, height, model)
    hires = resolve_hires(params.hires, width, height, steps, model) if params.hires else None
    if hires and images:
        raise InvalidRequest("hires", "given", "must be left out of a request that has an image")
    return replace(
        request,
        width=denoised_width,
        height=denoised_height,
        init=_resolve_init(params, images, denoised_width, denoised_height, steps) if images else None,
        hires=hires,
        output=replace(request.output, width=hires.width if hires else width, height=hires.height if hires else height),
    )


def _read_images(params: GenerationParams, model: ModelCapabilities) -> _InputImages | None:
    if params.image is None:
        for field, value in (("mask", params.mask), ("strength", params.strength)):
            if value is not None:
                raise InvalidRequest(field, "given", "must be left out of a request without an image")
        return None
    most = model.limits.max_input_pixels
    image = read_image("image", params.image, most)
    mask = read_image("mask", params.mask, most) if params.mask is not None else None
    if mask is not None and mask.size != image.size:
        size = f"{image.width}x{image.height}"
        raise InvalidRequest("mask", f"{mask.width}x{mask.height}", f"must have the image's size, {size}")
    return _InputImages(image, mask)


def _resolve_init(params: GenerationParams, images: _InputImages, width: int, height: int, steps: int) -> InitImage:
    strength = (0.8 if images.mask is None else 1.0) if params.strength is None else params.strength
    check_strength("strength", strength, steps)
    mask = to_mask(fit(images.mask, width, height, params.resize_mode)) if images.mask else None
    raster = to_raster(fit(images.image, width, height, params.resize_mode))
    return InitImage(raster=raster, strength=float(strength), mask=mask)


def file_size(params: GenerationParams, image: Image.Image | None, model: ModelCapabilities) -> tuple[int, int]:
    """The file's size in pixels. A missing side is native; without both, the image's size within the native area."""
    native, multiple = model.native_size, model.size_multiple
    if image is None or params.width is not None or params.height is not None:
        return native if params.width is None else params.width, native if params.height is None else params.height
    scale = min(1.0, native / math.sqrt(image.width * image.height))
    smallest = -(-model.limits.min_side // multiple) * multiple
    width, height = (max(smallest, int(side * scale) // multiple * multiple) for side in image.size)
    return width, height


def denoised_size(width: int, height: int, model: ModelCapabilities) -> tuple[int, int]:
    """The size to denoise: the file's up to the model's native area, else that area with the file's aspect ratio."""
    native, multiple = model.native_size, model.size_multiple
    if width * height <= native * native:
        return width, height
    blocks = native / math.sqrt(width * height) / multiple
    return max(1, round(width * blocks)) * multiple, max(1, round(height * blocks)) * multiple


def resolve_hires(params: HiresParams, width: int, height: int, steps: int, model: ModelCapabilities) -> Hires:
    """The second pass of an image of `width` x `height` pixels, within the same limits."""
    multiple = model.size_multiple
    large_width, large_height = (
        round(first * params.scale / multiple) * multiple if side is None else side
        for side, first in ((params.width, width), (params.height, height))
    )
    check_size(large_width, large_height, model, "hires.")
    second = steps if params.num_inference_steps is None else params.num_inference_steps
    check_range("hires.num_inference_steps", second, 1, model.limits.max_num_inference_steps)
    check_strength("hires.strength", params.strength, second)
    return Hires(
        width=large_width,
        height=large_height,
        strength=float(params.strength),
        num_inference_steps=second,
        upscaler=params.upscaler,
    )


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside `low` to `high`. NaN is outside."""
    if not low <= value <= high:
        raise InvalidRequest(field, value, f"must be between {low:g} and {high:.10g}")


def check_strength(field: str, strength: float, steps: int) -> None:
    """Refuse a strength outside 0 to 1, and one that leaves no step."""
    check_range(field, strength, 0, 1)
    if kept_steps(steps, strength) < 1:
        raise InvalidRequest(field, strength, f"must be at least {1 / steps:.4g}, to leave one of {steps} steps")


def check_size(width: int, height: int, model: ModelCapabilities, prefix: str = "") -> None:
    """Hold both sides and their product to the limits."""
    limits = model.limits
    for field, side in ((f"{prefix}width", width), (f"{prefix}height", height)):
        check_range(field, side, limits.min_side, limits.max_side)
        if side % model.size_multiple:
            raise InvalidRequest(field, side, f"must be a multiple of {model.size_multiple}")
    if width * height > limits.max_pixels:
        raise InvalidRequest(
            f"{prefix}width", f"{width}x{height}", f"must be such that width x height is at most {limits.max_pixels}"
        )
