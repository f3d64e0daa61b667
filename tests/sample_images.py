"""Pictures to send, as files."""

import io

import numpy as np
from PIL import Image


def photo(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    """Soft colours, different everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def half_mask(width: int = 64, height: int = 64) -> Image.Image:
    """White, to be repainted, on the right."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (width // 2, 0, width, height))
    return mask


def as_file(image: Image.Image, kind: str = "PNG") -> bytes:
    """The picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
