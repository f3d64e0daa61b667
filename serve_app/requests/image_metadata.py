"""What image files hold beside their pixels: its bounds, checked before the file is decoded, and the infotext in it."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import IFD, Base

from serve_app.errors import InvalidRequest

READABLE = ("PNG", "JPEG", "WEBP")
MAX_METADATA_BYTES = 64 * 1024
"""The largest infotext and the largest EXIF."""
MAX_SECTIONS = 1024
"""The most sections of metadata: JPEG segments, or PNG chunks without pixels. Each takes Python code or a megabyte."""
MAX_PIXEL_CHUNKS = 65536
"""The most PNG chunks with pixels. Common writers make one of every 8 KB or larger."""
MAX_SCANS = 64
"""The most scans of a JPEG. Each one takes a pass over all pixels, and a scan may be of a few bytes."""
MAX_JUNK_BYTES = 4096
"""The most bytes that belong to no JPEG segment."""

BROKEN_FILE = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    AssertionError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for broken files."""

_PNG, _JPEG, _START_OF_SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", 0xDA
_BARE = {0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}
"""Second bytes of JPEG markers that no length follows, as Pillow reads them."""
_PIXELS = (b"IDAT", b"fdAT", b"fcTL")


@contextmanager
def opened(field: str, content: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The file, opened by Pillow and not yet decoded. Inside, too, a broken file is an InvalidRequest.

    Raises:
        InvalidRequest: the file is none of `READABLE`, is broken, or is over a limit.
    """
    value, limit = f"{len(content)} bytes", "must be a complete PNG, JPEG or WebP file"
    check_sections(field, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=READABLE)
            if image.width * image.height > max_pixels:
                raise InvalidRequest(field, f"{image.width}x{image.height}", f"must have at most {max_pixels} pixels")
            yield image
    except Image.DecompressionBombError as error:
        raise InvalidRequest(field, value, f"must have at most {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidRequest(field, value, limit) from error
    except BROKEN_FILE as error:
        raise InvalidRequest(field, value, f"{limit} ({error})") from error


def check_sections(field: str, content: bytes) -> None:
    """Refuse a JPEG or PNG file that takes Pillow far longer than its size says. One pass over its sections."""
    if content.startswith(_PNG):
        _check_png(field, content)
    elif content.startswith(_JPEG):
        _check_jpeg(field, content)


def _check_png(field: str, content: bytes) -> None:
    position, others, pixels = len(_PNG), 0, 0
    while position + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, position)
        pixels += kind in _PIXELS
        others += kind not in _PIXELS
        _hold(field, "chunks of metadata", others, MAX_SECTIONS)
        _hold(field, "chunks of pixels", pixels, MAX_PIXEL_CHUNKS)
        if kind == b"eXIf":
            _hold(field, "bytes of EXIF", size, MAX_METADATA_BYTES)
        position += size + 12


def _check_jpeg(field: str, content: bytes) -> None:
    position, segments, exif, junk = 2, 0, 0, 0
    while (found := content.find(b"\xff", position)) >= 0:
        junk += found - position
        _hold(field, "bytes between segments", junk, MAX_JUNK_BYTES)
        marker = content[found + 1] if found + 1 < len(content) else 0
        if marker == _START_OF_SCAN:
            _hold(field, "scans", content.count(b"\xff\xda", found), MAX_SCANS)
            return
        if marker == 0xFF:
            junk += 1
            position = found + 1
            continue
        segments += 1
        _hold(field, "segments of metadata", segments, MAX_SECTIONS)
        bare = marker in _BARE or found + 4 > len(content)
        size = 0 if bare else int.from_bytes(content[found + 2 : found + 4])
        if marker == 0xE1 and content.startswith(b"Exif\0\0", found + 4):
            exif += size
            _hold(field, "bytes of EXIF", exif, MAX_METADATA_BYTES)
        position = found + 2 + size
    _hold(field, "bytes between segments", junk + max(0, len(content) - position), MAX_JUNK_BYTES)


def _hold(field: str, what: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidRequest(field, f"{count} {what}", f"must have at most {most} {what}")


def check_exif(field: str, image: Image.Image) -> None:
    """Refuse EXIF over the limit in a file that is decoded: WebP's, and PNG's as text."""
    raw = image.info.get("Raw profile type exif", "")
    _hold(field, "bytes of EXIF", len(image.info.get("exif", b"")), MAX_METADATA_BYTES)
    _hold(field, "bytes of EXIF", len(raw) // 2, MAX_METADATA_BYTES)


def infotext_of(content: bytes, field: str = "image", max_pixels: int = 4096 * 4096) -> str:
    """The infotext in a PNG's text or in EXIF's user comment; empty where there is none.

    Raises:
        InvalidRequest: the file is broken or over a limit, or the infotext is over `MAX_METADATA_BYTES`.
    """
    with opened(field, content, max_pixels) as image:
        image.load()
        check_exif(field, image)
        comment = image.getexif().get_ifd(IFD.Exif).get(Base.UserComment, b"")
        text = str(image.info.get("parameters", ""))
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        text = comment[8:].decode("utf-16-be", "replace")
    _hold(field, "bytes of infotext", len(text.encode(errors="replace")), MAX_METADATA_BYTES)
    return text
