"""Files that are nearly right: valid ones with bytes changed, and ones put together from odd pieces."""

import io
import struct
import zlib

from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from tests.sample_images import photo

BYTES = st.binary(max_size=40)
CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 20), BYTES, st.booleans()),
    min_size=1,
    max_size=6,
)
"""Where, how many bytes go, what comes in their place, and whether the rest of the file goes."""


def change(content: bytes, changes: list[tuple[float, int, bytes, bool]]) -> bytes:
    """`content` with these changes."""
    for where, removed, added, cut in changes:
        start = int(where * len(content))
        content = content[:start] + added + (b"" if cut and where > 0.5 else content[start + removed :])
    return content


def valid_images() -> list[bytes]:
    """Small files of every format and kind, with all the metadata they can have."""
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif.get_ifd(IFD.Exif)[Base.UserComment] = b"UNICODE\0" + "a cat\nSteps: 4".encode("utf-16-be")
    exif.get_ifd(IFD.GPSInfo)[1] = "N"
    text = PngInfo()
    text.add_text("parameters", "a cat\nSteps: 4")
    text.add_text("b", "c" * 100, zip=True)
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>', zip=True)
    small, metadata = photo(24, 16), {"exif": exif.tobytes(), "icc_profile": bytes(100)}
    xmp = {"xmp": b'<x tiff:Orientation="3"/>'}
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        (small, "PNG", {"pnginfo": text, **metadata}),
        (small.convert("P"), "PNG", {"transparency": 3}),
        (small.convert("L"), "PNG", {"bits": 4}),
        (small.convert("RGBA"), "PNG", {"save_all": True, "append_images": [small.convert("RGBA")]}),
        (small, "JPEG", {**metadata, **xmp}),
        (small.convert("CMYK"), "JPEG", {"progressive": True}),
        (small, "MPO", {"save_all": True, "append_images": [small]}),
        (small, "WEBP", {**metadata, **xmp}),
        (small.convert("RGBA"), "WEBP", {"save_all": True, "append_images": [small.convert("RGBA")]}),
    ]
    found = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


NUMBERS = st.sampled_from([0, 1, 2, 3, 8, 255, 2**16 - 1, 2**31 - 1, 2**32 - 1]) | st.integers(0, 2**32 - 1)
FIELDS = st.lists(
    st.tuples(
        st.sampled_from([Base.Orientation, Base.ExifOffset, Base.GPSInfo, Base.UserComment, 0xA005]) | NUMBERS,
        st.integers(0, 20),
        NUMBERS,
        NUMBERS,
    ),
    max_size=6,
)


def write_exif(order: bytes, first: int, fields: list[tuple[int, int, int, int]], rest: bytes) -> bytes:
    """EXIF with these fields, of which nothing need be right."""
    sign = "<" if order == b"II" else ">"
    packed = [struct.pack(f"{sign}HHII", tag % 2**16, kind, count, value) for tag, kind, count, value in fields]
    head = order + struct.pack(f"{sign}HIH", 42, first, len(fields))
    return b"Exif\0\0" + head + b"".join(packed) + rest


EXIF = st.builds(write_exif, st.sampled_from([b"II", b"MM"]), st.just(8) | NUMBERS, FIELDS, BYTES) | BYTES
DEFLATED = st.builds(lambda head, body: head + zlib.compress(body), st.sampled_from([b"a\0\0", b"a\0\1\0\0\0"]), BYTES)
KINDS = b"IHDR PLTE IDAT IEND tEXt zTXt iTXt eXIf iCCP tRNS gAMA cHRM sRGB pHYs acTL fcTL fdAT abCd".split()
PNG_CHUNKS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        BYTES | DEFLATED | EXIF.map(lambda exif: exif[6:]),
    ),
    max_size=5,
)
JPEG_SEGMENTS = st.lists(
    st.tuples(
        st.integers(0xC0, 0xFE),
        BYTES | EXIF | st.builds(bytes.__add__, st.sampled_from([b"MPF\0", b"JFIF\0", b"Adobe\0", b"8BIM"]), BYTES),
    ),
    max_size=5,
)


def put_chunks(png: bytes, chunks: list[tuple[bytes, bytes]], at: int) -> bytes:
    """A PNG with chunks put in whose checksums are right, after its header or before its end."""
    packed = [
        struct.pack(">I", len(one)) + kind + one + struct.pack(">I", zlib.crc32(kind + one)) for kind, one in chunks
    ]
    return png[:at] + b"".join(packed) + png[at:]


def put_segments(jpeg: bytes, segments: list[tuple[int, bytes]]) -> bytes:
    """A JPEG with segments put in."""
    packed = [struct.pack(">BBH", 0xFF, marker, len(one) + 2) + one for marker, one in segments]
    return jpeg[:2] + b"".join(packed) + jpeg[2:]
