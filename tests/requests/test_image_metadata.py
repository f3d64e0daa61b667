"""Metadata of image files: read within bounds, refused beyond them, never an error of Pillow's."""

import io
import struct
import zlib
from contextlib import suppress
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from serve_app.errors import InvalidRequest
from serve_app.requests.image_files import ImageFormat, OutputSpec, encode_image, read_image
from serve_app.requests.image_metadata import infotext_of
from tests.sample_images import as_file, photo

PNG, JPEG, WEBP = (as_file(photo(), kind) for kind in ("PNG", "JPEG", "WEBP"))
AFTER_HEADER = 33
"""Where PNG chunks may be put in: after the signature and IHDR."""


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes) -> bytes:
    return PNG[:AFTER_HEADER] + b"".join(chunks) + PNG[AFTER_HEADER:]


def jpeg_with(*segments: bytes, junk: bytes = b"") -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:20] + junk + JPEG[20:]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def itxt(megabytes: int) -> bytes:
    return chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(b"x" * megabytes * 1_000_000))


def with_exif(kind: str, comment: bytes) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.UserComment] = comment
    buffer = io.BytesIO()
    photo().save(buffer, kind, exif=exif.tobytes())
    return buffer.getvalue()


def raw_exif_text(size: int) -> bytes:
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{size}\n" + "00" * size)
    buffer = io.BytesIO()
    photo().save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


TOO_MUCH = {
    "infotext": (png_with(chunk(b"tEXt", b"parameters\0" + b"x" * 70_000)), "65536 bytes of infotext"),
    "EXIF of a PNG": (png_with(chunk(b"eXIf", b"II*\0" + bytes(70_000))), "65536 bytes of EXIF"),
    "EXIF of a PNG as text": (raw_exif_text(70_000), "65536 bytes of EXIF"),
    "EXIF of a WebP": (with_exif("WEBP", bytes(70_000)), "65536 bytes of EXIF"),
    "EXIF of a JPEG": (jpeg_with(*[segment(0xE1, b"Exif\0\0" + bytes(40_000))] * 2), "65536 bytes of EXIF"),
    "chunks": (png_with(chunk(b"teXt", b"") * 2000), "1024 chunks of metadata"),
    "pixel chunks": (PNG + chunk(b"IDAT", b"") * 70_000, "65536 chunks of pixels"),
    "segments": (jpeg_with(segment(0xE5, b"") * 2000), "1024 segments of metadata"),
    "scans": (JPEG + segment(0xDA, b"") * 100, "64 scans"),
    "junk": (jpeg_with(junk=bytes(10_000)), "4096 bytes between segments"),
    "only junk": (JPEG[:20] + bytes(10_000), "4096 bytes between segments"),
}
BROKEN = {
    "zTXt bomb": png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000)))),
    "iTXt bomb": png_with(itxt(2)),
    "many texts": png_with(*[itxt(1)] * 100),
    "iCCP bomb": png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000)))),
    "four bytes of EXIF": png_with(chunk(b"eXIf", b"abcd")),
    "no EXIF": png_with(chunk(b"eXIf", b"")),
    "EXIF that points outside": png_with(chunk(b"eXIf", b"II*\0" + struct.pack("<I", 5000))),
    "EXIF that is no TIFF": jpeg_with(segment(0xE1, b"Exif\0\0abcd")),
    "EXIF text that is not hex": png_with(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nxyz")),
    "MPF": jpeg_with(segment(0xE2, b"MPF\0abcd")),
    "cut chunk": PNG[: AFTER_HEADER + 6],
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_metadata_is_refused(name: str) -> None:
    content, limit = TOO_MUCH[name]
    with pytest.raises(InvalidRequest, match=f"^image: must have at most {limit}"):
        infotext_of(content)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_is_ignored_or_refused(name: str) -> None:
    for read in (infotext_of, lambda content: read_image("image", content, 4096 * 4096)):
        with suppress(InvalidRequest):
            read(BROKEN[name])


@pytest.mark.parametrize("kind", get_args(ImageFormat))
def test_what_is_written_is_read(kind: ImageFormat) -> None:
    infotext = "a cat, " * 2000 + "\nSteps: 4, Seed: 1"
    output = OutputSpec(64, 64, format=kind, infotext=infotext)
    assert infotext_of(encode_image(np.asarray(photo()), output)) == infotext
