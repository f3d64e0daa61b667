"""Every parser of what callers and operators send, and text that is hard for parsers."""

import io
from collections.abc import Callable, Mapping

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serve_app.api.a1111.conversion import read_a1111_names
from serve_app.api.infotext import read_infotext
from serve_app.errors import DarkroomError
from serve_app.models.text.chunks import tokenize
from serve_app.models.text.prompt_weights import parse_weights
from serve_app.requests.image_files import read_base64
from serve_app.requests.image_metadata import check_sections, infotext_of
from serve_app.requests.resolve import read_lora_tags
from serve_app.requests.samplers import read_names
from tests.checkpoints import make_tokenizer

tokenizer = make_tokenizer()

TEXT_PARSERS: Mapping[str, Callable[[str], object]] = {
    "infotext": lambda text: read_infotext(f"Steps: {text}"),
    "infotext's prompt": read_infotext,
    "prompt weights": parse_weights,
    "chunks": lambda text: tokenize(tokenizer, printable(text), weighted=True),
    "LoRA tags": read_lora_tags,
    "sampler": lambda text: read_names(text, text),
    "A1111's sampler": lambda text: read_a1111_names(text, None),
    "base64": lambda text: read_base64("image", text),
    "PNG text": lambda text: infotext_of(png_with(text)),
    "sections": lambda text: check_sections("image", text.encode(errors="replace")),
}

HOSTILE: Mapping[str, Callable[[int], str]] = {
    "spaces": lambda n: " " * n,
    "spaces and an end": lambda n: "a" + " " * n + "a",
    "letters": lambda n: "a" * n,
    "quotes": lambda n: '"' * n,
    "a quote": lambda n: 'a: "' + "a, " * (n // 3),
    "backslashes": lambda n: "\\" * n,
    "quoted backslashes": lambda n: 'a: "' + "\\" * n,
    "open brackets": lambda n: "(" * n,
    "close brackets": lambda n: ")" * n,
    "brackets": lambda n: "([" * (n // 2),
    "nested brackets": lambda n: "(" * (n // 2) + "a" + ")" * (n // 2),
    "pairs": lambda n: "(a)b[c]" * (n // 7),
    "weights": lambda n: "(" * (n // 3) + "a:" * (n // 3),
    "colons": lambda n: ":" * n,
    "keys": lambda n: "a: b, " * (n // 6),
    "open quotes": lambda n: 'a:"x, ' * (n // 6),
    "commas": lambda n: "," * n,
    "digits": lambda n: "1" * n,
    "a weight of digits": lambda n: "(a:" + "1" * n,
    "BREAKs": lambda n: "BREAK " * (n // 6),
    "spaced BREAKs": lambda n: " " * (n // 2) + "BREAK" + " " * (n // 2),
    "Bs": lambda n: "B" * n,
    "LoRAs": lambda n: "<lora:" * (n // 6),
    "LoRA": lambda n: "<lora:" + "a" * n,
    "LoRA tags": lambda n: "<lora:a:1>" * (n // 10),
    "lines": lambda n: "\n" * n,
    "negatives": lambda n: "Negative prompt: " * (n // 17),
    "markers": lambda n: "\ufffd" * n,
    "data URL": lambda n: "data:image/" + "a" * n,
}


def printable(text: str) -> str:
    """`text` without halves of surrogate pairs, which are refused before this is read."""
    return text.encode(errors="replace").decode()


def png_with(text: str) -> bytes:
    """A PNG with `text` as its infotext."""
    info = PngInfo()
    info.add_itxt("parameters", printable(text))
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def answers(parse: Callable[..., object], *given: object) -> bool:
    """Whether `parse` took what it was given. Anything but a DarkroomError passes through."""
    try:
        parse(*given)
    except DarkroomError:
        return False
    return True
