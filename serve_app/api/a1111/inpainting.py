"""AUTOMATIC1111's inpainting: draw only the masked region if asked, then put the original back around it."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from serve_app.api.a1111.schemas import A1111Img2ImgBody
from serve_app.errors import InvalidRequest
from serve_app.requests.image_files import (
    OutputSpec,
    encode_image,
    encode_png,
    fit,
    open_image,
    read_base64,
    read_image,
)
from serve_app.requests.sizes import check_range

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Overlay:
    """The original image, put back where the blurred mask is not white. `box` is the region that was drawn.

    Image and mask are files: as pixels they would take up to 64 MB while the request waits and is drawn.
    """

    original: bytes
    mask: bytes
    box: Box
    max_pixels: int

    def apply(self, content: bytes, output: OutputSpec) -> bytes:
        """The drawn file pasted into the original image, with the drawn file's metadata."""
        left, top, right, bottom = self.box
        drawn = open_image(content).resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        original = read_image("init_images", self.original, self.max_pixels).convert("RGB")
        whole = original.copy()
        whole.paste(drawn, (left, top))
        merged = Image.composite(whole, original, read_image("mask", self.mask, self.max_pixels).convert("L"))
        return encode_image(np.asarray(merged), replace(output, width=merged.width, height=merged.height))


@dataclass(frozen=True)
class InpaintPlan:
    """The files to send to the engine, and what to put back around the drawn image."""

    image: bytes
    mask: bytes | None
    overlay: Overlay | None


def plan_inpainting(body: A1111Img2ImgBody, max_pixels: int) -> InpaintPlan:
    """Read the images that were sent. Raises InvalidRequest."""
    if len(body.init_images) != 1:
        raise InvalidRequest("init_images", f"{len(body.init_images)} images", "must be one image")
    content = read_base64("init_images", body.init_images[0])
    image = read_image("init_images", content, max_pixels).convert("RGB")
    if body.mask is None:
        return InpaintPlan(content, None, None)
    mask = read_image("mask", read_base64("mask", body.mask), max_pixels).convert("L")
    mask = fit(ImageOps.invert(mask) if body.inpainting_mask_invert else mask, *image.size, "stretch")
    soft = mask.filter(ImageFilter.GaussianBlur(body.mask_blur))
    if not body.inpaint_full_res:
        start = fill_hole(image, soft) if body.inpainting_fill == 0 else image
        whole = Overlay(content, encode_png(soft), (0, 0, *image.size), max_pixels)
        return InpaintPlan(encode_png(start), whole.mask, whole)
    for field, side in (("width", body.width), ("height", body.height)):
        check_range(field, side or 1, 1, max_pixels)
    ratio = (body.width or image.width) / (body.height or image.height)
    box = region(mask, body.inpaint_full_res_padding, ratio)
    inner, hole = image.crop(box), soft.crop(box)
    start = fill_hole(inner, hole) if body.inpainting_fill == 0 else inner
    overlay = Overlay(content, encode_png(soft), box, max_pixels)
    return InpaintPlan(encode_png(start), encode_png(hole), overlay)


def fill_hole(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image, where `mask` is white the colours around it, the softer the farther from the edge.

    Means over ever larger squares of what is known, the finest on top: pull and push (Gortler et al., The Lumigraph,
    1996). Pillow resizes premultiplied, so that what is hidden does not count. Each size is made of the next one, so
    that all of them together cost little more than the whole image.
    """
    known = image.convert("RGBA")
    known.putalpha(ImageOps.invert(mask))
    means = [known]
    while max(means[-1].size) > 1:
        means.append(means[-1].resize([-(-side // 2) for side in means[-1].size], Image.Resampling.BOX))
    filled = Image.new("RGBA", (1, 1), "grey")
    for mean in reversed(means[1:]):
        filled = filled.resize(mean.size, Image.Resampling.BILINEAR)
        mean.putalpha(mean.getchannel("A").point([0] + [255] * 255))
        filled.alpha_composite(mean)
    filled = filled.resize(known.size, Image.Resampling.BILINEAR)
    filled.alpha_composite(known)
    return filled.convert("RGB")


def region(mask: Image.Image, padding: int, ratio: float) -> Box:
    """The white part and `padding` pixels around it, widened to `ratio` as far as the image goes."""
    found = mask.point([255 * (value > 127) for value in range(256)]).getbbox()
    if found is None:
        raise InvalidRequest("mask", "all black", "must have a white part to repaint")
    left, top = (max(0, side - padding) for side in found[:2])
    right, bottom = (min(most, side + padding) for side, most in zip(found[2:], mask.size, strict=True))
    width, height = right - left, bottom - top
    if width < height * ratio:
        left, right = _widen(left, right, round(height * ratio), mask.width)
    else:
        top, bottom = _widen(top, bottom, round(width / ratio), mask.height)
    return left, top, right, bottom


def _widen(low: int, high: int, wanted: int, most: int) -> tuple[int, int]:
    """A span of `wanted`, about the same middle, within 0..most."""
    wanted = min(wanted, most)
    low = min(max(0, low - (wanted - (high - low)) // 2), most - wanted)
    return low, low + wanted
