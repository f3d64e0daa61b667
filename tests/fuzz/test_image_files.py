"""Whatever bytes a caller sends as an image: it is read, or refused with an error of ours."""

import io

from hypothesis import given
from hypothesis import strategies as st

from serve_app.requests.image_files import read_image, to_raster
from serve_app.requests.image_metadata import infotext_of
from tests.fuzz.mutations import (
    CHANGES,
    EXIF,
    JPEG_SEGMENTS,
    PNG_CHUNKS,
    change,
    put_chunks,
    put_segments,
    valid_images,
)
from tests.fuzz.parsers import answers
from tests.sample_images import as_file, photo

IMAGES = valid_images()
PNG, JPEG = as_file(photo(24, 16)), as_file(photo(24, 16), "JPEG")


def read(content: bytes) -> None:
    """Read the pixels and the infotext as the routes do."""
    answers(lambda: to_raster(read_image("image", content, 4096 * 4096)))
    answers(infotext_of, content)


def test_valid_images_are_read() -> None:
    for content in IMAGES:
        assert answers(read_image, "image", content, 4096 * 4096)
        assert answers(infotext_of, content)


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x10\0\0\0WEBPVP8 "]), st.binary())
def test_any_bytes(start: bytes, rest: bytes) -> None:
    read(start + rest)


@given(st.sampled_from(IMAGES), CHANGES)
def test_changed_images(content: bytes, changes: list[tuple[float, int, bytes, bool]]) -> None:
    read(change(content, changes))


@given(PNG_CHUNKS, st.sampled_from([8, 33, len(PNG) - 12, len(PNG)]))
def test_odd_chunks_of_a_png(chunks: list[tuple[bytes, bytes]], at: int) -> None:
    read(put_chunks(PNG, chunks, at))


@given(JPEG_SEGMENTS)
def test_odd_segments_of_a_jpeg(segments: list[tuple[int, bytes]]) -> None:
    read(put_segments(JPEG, segments))


@given(EXIF, st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_odd_exif(exif: bytes, kind: str) -> None:
    buffer = io.BytesIO()
    photo(24, 16).save(buffer, kind, exif=exif)
    read(buffer.getvalue())
