"""Pictures that callers send: read with every guard up, laid out at the size to denoise. No torch."""

import base64
import binascii
import io
import re
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from serve_app.config import Limits
from serve_app.errors import InvalidRequest
from serve_app.requests.request import Raster

ResizeMode = Literal["stretch", "crop", "fill"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("stretch", "crop", "fill")
READABLE = ("PNG", "JPEG", "WEBP")
DATA_URL = re.compile(r"data:image/[a-z.+-]+;base64,", re.IGNORECASE)


def read_base64(field: str, text: str) -> bytes:
    """Base64, bare or as a data URL, to bytes; raises InvalidRequest."""
    mark = DATA_URL.match(text)
    try:
        return base64.b64decode(text[mark.end() :] if mark else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(field, f"{text[:32]}...", f"must be base64 or a data URL of an image ({error})") from error


def read_picture(field: str, content: bytes, limits: Limits) -> Image.Image:
    """Decode a PNG, JPEG or WebP, upright as its EXIF says, to RGB or RGBA; raises InvalidRequest.

    The size is read and held to `max_input_pixels` before anything is decompressed.
    """
    what = f"{len(content)} bytes"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=READABLE)
        if image.width * image.height > limits.max_input_pixels:
            size = f"{image.width}x{image.height}"
            raise InvalidRequest(field, size, f"must be at most {limits.max_input_pixels} pixels")
        upright = ImageOps.exif_transpose(image)
        return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except Image.DecompressionBombError as error:
        raise InvalidRequest(field, what, f"must be at most {limits.max_input_pixels} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidRequest(field, what, f"must be a whole PNG, JPEG or WebP image ({error})") from error


def fit(image: Image.Image, width: int, height: int, mode: ResizeMode) -> Image.Image:
    """Resize with Lanczos: `stretch`, `crop` what overhangs, or `fill` up with the edge's pixels."""
    if image.size == (width, height):
        return image
    if mode == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    if mode == "fill":
        inner = ImageOps.contain(image, (width, height), Image.Resampling.LANCZOS)
        return _extend(inner, width, height)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _extend(inner: Image.Image, width: int, height: int) -> Image.Image:
    """`inner` in the middle of a larger picture whose rest repeats its outermost rows or columns."""
    left, top = (width - inner.width) // 2, (height - inner.height) // 2
    margins = ((top, height - inner.height - top), (left, width - inner.width - left), (0, 0))
    return Image.fromarray(np.pad(np.asarray(inner), margins, mode="edge"))


def to_raster(image: Image.Image) -> Raster:
    """RGB pixels; what is transparent is laid on white."""
    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return Raster(image.width, image.height, "RGB", image.convert("RGB").tobytes())


def to_mask(image: Image.Image) -> Raster:
    """255 where the picture is light (repaint), 0 where it is dark (keep)."""
    grey = np.asarray(image.convert("RGB").convert("L"))
    return Raster(image.width, image.height, "L", np.where(grey > 127, 255, 0).astype(np.uint8).tobytes())


def to_image(raster: Raster) -> Image.Image:
    """The picture again."""
    return Image.frombytes(raster.mode, (raster.width, raster.height), raster.content)


def mask_from_alpha(field: str, content: bytes, limits: Limits) -> bytes | None:
    """A PNG that is white where the picture is fully transparent; None where it is opaque all over."""
    image = read_picture(field, content, limits)
    if image.mode != "RGBA":
        return None
    hole = Image.fromarray(np.where(np.asarray(image)[:, :, 3] == 0, 255, 0).astype(np.uint8))
    buffer = io.BytesIO()
    hole.save(buffer, "PNG")
    return buffer.getvalue()
