"""Pictures that callers send: read upright, brought to size, and refused by name where they are none."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from serve_app.errors import InvalidRequest
from serve_app.requests.image_files import fit, read_base64, read_image, to_mask, to_raster
from tests.sample_images import as_file, half_mask, photo

MAX_PIXELS = 4096 * 4096


def claim_size(width: int, height: int) -> bytes:
    """A PNG that says it is large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(64)))
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_three_formats_are_read(kind: str) -> None:
    picture = read_image("image", as_file(photo(40, 24), kind), MAX_PIXELS)
    assert picture.size == (40, 24)
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(photo(40, 24))).mean() < 5


def test_exif_orientation_is_honoured() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    photo(40, 24).save(buffer, "JPEG", exif=exif)
    assert read_image("image", buffer.getvalue(), MAX_PIXELS).size == (24, 40)


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert set(to_raster(read_image("image", as_file(clear), MAX_PIXELS)).content) == {255}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "must be a complete PNG, JPEG or WebP file"),
        (as_file(photo())[:200], "must be a complete PNG, JPEG or WebP file"),
        (as_file(photo(), "BMP"), "must be a complete PNG, JPEG or WebP file"),
        (claim_size(50_000, 50_000), "must have at most 16777216 pixels"),
        (claim_size(4097, 4097), "must have at most 16777216 pixels"),
    ],
    ids=["text", "cut short", "bmp", "bomb", "large"],
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"image: {reason}"):
        read_image("image", content, MAX_PIXELS)


def test_base64_comes_bare_or_as_a_data_url() -> None:
    plain = base64.b64encode(b"abc").decode()
    assert read_base64("image", plain) == read_base64("image", f"data:image/png;base64,{plain}") == b"abc"
    for text in ("http://example.org/x.png", "/etc/passwd", "data:text/plain;base64,YWJj", "%%%"):
        with pytest.raises(InvalidRequest, match="image: must be base64 or a data URL"):
            read_base64("image", text)


def test_resize_modes() -> None:
    wide = photo(96, 48)
    assert fit(wide, 64, 64, "stretch").size == (64, 64)
    cropped = np.asarray(fit(wide, 48, 48, "crop")).astype(int)
    assert np.abs(cropped - np.asarray(wide)[:, 24:72]).max() == 0
    filled = np.asarray(fit(wide, 96, 96, "fill")).astype(int)
    assert np.abs(filled[24:72] - np.asarray(wide)).max() == 0
    assert (filled[:24] == filled[24]).all(), "above it, the first row goes on"
    assert (filled[72:] == filled[71]).all()


def test_a_mask_is_black_or_white() -> None:
    mask = to_mask(half_mask())
    assert set(mask.content) == {0, 255}
    assert np.frombuffer(mask.content, np.uint8).reshape(64, 64)[:, 32:].min() == 255
