"""AUTOMATIC1111's inpainting around the engine's: draw only the masked region if asked, then lay back the original."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from serve_app.api.a1111.schemas import A1111Img2ImgBody
from serve_app.config import Limits
from serve_app.errors import InvalidRequest
from serve_app.requests.input_images import fit, read_base64, read_picture
from serve_app.requests.output_images import encode_image, open_image
from serve_app.requests.request import OutputSpec

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Overlay:
    """The original, laid over the drawn picture but where the (soft) mask is white. `box` is what was drawn."""

    original: Image.Image
    mask: Image.Image
    box: Box

    def apply(self, content: bytes, output: OutputSpec) -> bytes:
        """The drawn file pasted into the original, with the drawn file's metadata."""
        left, top, right, bottom = self.box
        drawn = open_image(content).resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        whole = self.original.copy()
        whole.paste(drawn, (left, top))
        merged = Image.composite(whole, self.original, self.mask)
        size = OutputSpec(*merged.size, output.format, output.quality, output.infotext, output.ai_mark)
        return encode_image(np.asarray(merged), size)


@dataclass(frozen=True)
class InpaintPlan:
    """What to send to the engine, as files, and what to lay over its answer."""

    image: bytes
    mask: bytes | None
    overlay: Overlay | None


def plan(body: A1111Img2ImgBody, limits: Limits) -> InpaintPlan:
    """Read what was sent; raises InvalidRequest."""
    if len(body.init_images) != 1:
        raise InvalidRequest("init_images", f"{len(body.init_images)} images", "must be one image")
    content = read_base64("init_images", body.init_images[0])
    picture = read_picture("init_images", content, limits).convert("RGB")
    if body.mask is None:
        return InpaintPlan(content, None, None)
    mask = read_picture("mask", read_base64("mask", body.mask), limits).convert("L")
    mask = fit(ImageOps.invert(mask) if body.inpainting_mask_invert else mask, *picture.size, "stretch")
    soft = mask.filter(ImageFilter.GaussianBlur(body.mask_blur))
    if not body.inpaint_full_res:
        start = fill_hole(picture, soft) if body.inpainting_fill == 0 else picture
        return InpaintPlan(_file(start), _file(soft), Overlay(picture, soft, (0, 0, *picture.size)))
    ratio = (body.width or picture.width) / (body.height or picture.height)
    box = region(mask, body.inpaint_full_res_padding, ratio)
    inner, hole = picture.crop(box), soft.crop(box)
    start = fill_hole(inner, hole) if body.inpainting_fill == 0 else inner
    return InpaintPlan(_file(start), _file(hole), Overlay(picture, soft, box))


def fill_hole(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture, where `mask` is white the colours around it, the softer the farther from the edge.

    Means over ever larger squares of what is known, the finest on top: pull and push (Gortler et al., The Lumigraph,
    1996). Pillow resizes premultiplied, so that what is hidden does not count.
    """
    known = picture.convert("RGBA")
    known.putalpha(ImageOps.invert(mask))
    filled = Image.new("RGBA", picture.size, "grey")
    square = 1 << max(picture.size).bit_length()
    while square > 1:
        small = known.resize([max(1, -(-side // square)) for side in picture.size], Image.Resampling.BOX)
        solid = small.getchannel("A").point([0] + [255] * 255)
        small.putalpha(solid)
        filled.alpha_composite(small.resize(picture.size, Image.Resampling.BILINEAR))
        square //= 2
    filled.alpha_composite(known)
    return filled.convert("RGB")


def region(mask: Image.Image, padding: int, ratio: float) -> Box:
    """The white part and `padding` pixels around it, widened to `ratio` as far as the picture goes."""
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


def _file(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
