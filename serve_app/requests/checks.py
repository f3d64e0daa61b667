"""Limits, each with its field's name. No torch."""

from collections.abc import Iterable

from serve_app.config import Limits
from serve_app.errors import InvalidRequest, UnknownName


def check_range(field: str, value: float, low: float, high: float) -> None:
    """Refuse what is outside; NaN is."""
    if not low <= value <= high:
        raise InvalidRequest(field, value, f"must be between {low:g} and {high:.10g}")


def check_choice(field: str, value: str, known: Iterable[str]) -> None:
    """Refuse a name that is none of `known`."""
    names = tuple(known)
    if value not in names:
        allowed = f"one of {', '.join(names)}" if names else "left out: none is configured"
        raise UnknownName(field, value, f"must be {allowed}")


def check_prompts(prompt: str, negative_prompt: str, limits: Limits, may_be_empty: bool = False) -> None:
    """Refuse an empty prompt unless it may be, and either prompt where it is too long or no text."""
    if not may_be_empty and not prompt.strip():
        raise InvalidRequest("prompt", prompt, "must not be empty")
    for field, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if len(text) > limits.max_prompt_characters:
            raise InvalidRequest(field, text, f"must be at most {limits.max_prompt_characters} characters")
        if any(0xD800 <= ord(char) <= 0xDFFF or char == "\0" for char in text):
            raise InvalidRequest(field, ascii(text), "must be valid Unicode text without NUL")


def check_size(width: int, height: int, limits: Limits, prefix: str = "") -> None:
    """Hold both sides and their product to the limits."""
    for field, side in ((f"{prefix}width", width), (f"{prefix}height", height)):
        check_range(field, side, limits.min_side, limits.max_side)
        if side % limits.size_multiple:
            raise InvalidRequest(field, side, f"must be a multiple of {limits.size_multiple}")
    if width * height > limits.max_pixels:
        raise InvalidRequest(
            f"{prefix}width", f"{width}x{height}", f"times height must be at most {limits.max_pixels} pixels"
        )
