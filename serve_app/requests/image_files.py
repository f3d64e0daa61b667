"""Image files in and out: files that callers send, read and fitted; pixels written to a file with metadata."""

import base64
import io
import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from serve_app.errors import InvalidRequest
from serve_app.requests.image_metadata import check_exif, opened

ImageFormat = Literal["png", "jpeg", "webp"]
ResizeMode = Literal["stretch", "crop", "fill"]
MEDIA_TYPES: dict[ImageFormat, str] = {kind: f"image/{kind}" for kind in get_args(ImageFormat)}
DATA_URL = re.compile(r"data:image/[a-z.+-]+;base64,", re.IGNORECASE)

PNG_LEVEL = 1
"""Compression level 1 takes half the time of the default, for files a few percent larger."""

AI_MARK = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
"""IPTC's Digital Source Type for an image created by a trained algorithm."""


@dataclass(frozen=True)
class Raster:
    """Decoded pixels, row by row: three bytes each (`RGB`), or one byte each (`L`) for a mask."""

    width: int
    height: int
    mode: Literal["RGB", "L"]
    content: bytes


@dataclass(frozen=True)
class OutputSpec:
    """The file to write: its size in pixels, its format and its metadata.

    An image of another size is resized with Lanczos. `quality` (1 to 100) is for JPEG and WebP. `ai_mark` writes IPTC's
    Digital Source Type into the XMP metadata.
    """

    width: int
    height: int
    format: ImageFormat = "png"
    quality: int = 95
    infotext: str = ""
    ai_mark: bool = True


def find_format(text: str) -> ImageFormat | None:
    """`PNG`, `jpg` and the like as a format that `encode_image` writes; None if unknown."""
    plain = text.lower().replace("jpg", "jpeg")
    return next((known for known in MEDIA_TYPES if known == plain), None)


def encode_image(pixels: np.ndarray, output: OutputSpec) -> bytes:
    """Pixels (h, w, 3) uint8 to the bytes of the file that `output` describes."""
    image = Image.fromarray(pixels)
    if image.size != (output.width, output.height):
        image = image.resize((output.width, output.height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if output.format == "png":
        text = PngInfo()
        if output.infotext:
            text.add_text("parameters", output.infotext)
        if output.ai_mark:
            text.add_itxt("XML:com.adobe.xmp", AI_MARK)
        image.save(buffer, "PNG", compress_level=PNG_LEVEL, pnginfo=text)
    else:
        mark = {"xmp": AI_MARK.encode()} if output.ai_mark else {}
        image.save(buffer, output.format.upper(), quality=output.quality, exif=_exif(output.infotext), **mark)
    return buffer.getvalue()


def encode_png(image: Image.Image) -> bytes:
    """A PNG without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def open_image(content: bytes) -> Image.Image:
    """A file that `encode_image` wrote, as RGB."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def blur_image(content: bytes, output: OutputSpec) -> bytes:
    """The file with its image blurred so that only colours are left, and with the same metadata."""
    image = open_image(content)
    soft = image.filter(ImageFilter.GaussianBlur(max(image.size) / 16))
    return encode_image(np.asarray(soft), replace(output, width=image.width, height=image.height))


def decode_base64(text: object) -> object:
    """The bytes of base64 text, bare or as a data URL; anything but text is returned as it is.

    Raises:
        ValueError: the text is not base64.
    """
    if not isinstance(text, str):
        return text
    mark = DATA_URL.match(text)
    try:
        return base64.b64decode(text[mark.end() :] if mark else text, validate=True)
    except ValueError as error:
        raise ValueError(f"must be base64 or a data URL of an image ({error})") from error


def read_base64(field: str, text: str) -> bytes:
    """The bytes of base64 text, bare or as a data URL. Raises InvalidRequest."""
    try:
        content = decode_base64(text)
    except ValueError as error:
        raise InvalidRequest(field, f"{text[:32]}...", str(error)) from error
    assert isinstance(content, bytes)
    return content


def read_image(field: str, content: bytes, max_pixels: int) -> Image.Image:
    """Decode a PNG, JPEG or WebP file to RGB or RGBA, turned upright as its EXIF says.

    The size is checked before anything is decompressed.

    Raises:
        InvalidRequest: the content is no such file, has more than `max_pixels` pixels, or too much metadata.
    """
    with opened(field, content, max_pixels) as image:
        image.load()
        check_exif(field, image)
        upright = ImageOps.exif_transpose(image)
        return upright.convert("RGBA" if upright.has_transparency_data else "RGB")


def fit(image: Image.Image, width: int, height: int, mode: ResizeMode) -> Image.Image:
    """Resize with Lanczos: `stretch`; `crop` what overhangs; or `fill` the margins with the edge's pixels."""
    if image.size == (width, height):
        return image
    if mode == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    if mode == "fill":
        return _extend(ImageOps.contain(image, (width, height), Image.Resampling.LANCZOS), width, height)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def to_raster(image: Image.Image) -> Raster:
    """RGB pixels. Transparent parts are laid on white."""
    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return Raster(image.width, image.height, "RGB", image.convert("RGB").tobytes())


def to_mask(image: Image.Image) -> Raster:
    """255 (repaint) where the image is light, 0 (keep) where it is dark."""
    grey = np.asarray(image.convert("RGB").convert("L"))
    return Raster(image.width, image.height, "L", np.where(grey > 127, 255, 0).astype(np.uint8).tobytes())


def mask_from_alpha(image: Image.Image) -> bytes | None:
    """A PNG that is white where `image` is fully transparent; None where `image` has no alpha channel."""
    if image.mode != "RGBA":
        return None
    return encode_png(Image.fromarray(np.where(np.asarray(image)[:, :, 3] == 0, 255, 0).astype(np.uint8)))


def _extend(inner: Image.Image, width: int, height: int) -> Image.Image:
    """`inner` in the middle of a larger image whose margins repeat its outermost rows or columns."""
    left, top = (width - inner.width) // 2, (height - inner.height) // 2
    margins = ((top, height - inner.height - top), (left, width - inner.width - left), (0, 0))
    return Image.fromarray(np.pad(np.asarray(inner), margins, mode="edge"))


def _exif(infotext: str) -> bytes:
    """EXIF whose UserComment holds the infotext, as UTF-16 after the standard's UNICODE mark."""
    exif = Image.Exif()
    if infotext:
        exif.get_ifd(IFD.Exif)[Base.UserComment] = b"UNICODE\0" + infotext.encode("utf-16-be")
    return exif.tobytes()
