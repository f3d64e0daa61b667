"""The parsers as they were first written: quadratic and cubic, but short. They say what the fast ones must find."""

import re
from dataclasses import replace

from serve_app.models.text.prompt_weights import ROUND, SQUARE, Part

TOKEN = re.compile(
    r"\\[\\()\[\]]|[()\[\]]|\s*\bBREAK\b\s*|:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)|[^\\()\[\]:B\s]+|.",
    re.DOTALL,
)
FIELD = re.compile(r'\s*([\w ()/+-]+?):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')


def slow_fields(line: str) -> dict[str, str]:
    """The fields of an infotext's last line."""
    return {name.strip(): value.strip().strip('"') for name, value in FIELD.findall(line) if name.strip()}


def slow_weights(prompt: str) -> list[Part]:
    """As AUTOMATIC1111 does: each bracket that closes multiplies the weights of everything since it opened."""
    parts: list[Part] = []
    opened: list[tuple[str, int]] = []
    for token in TOKEN.findall(prompt):
        inner = opened[-1][0] if opened else ""
        if token in ("(", "["):
            opened.append((token, len(parts)))
        elif token.startswith(":") and token.endswith(")") and inner == "(":
            weigh(parts, opened.pop()[1], float(token[1:-1]))
        elif token == ")" and inner == "(":
            weigh(parts, opened.pop()[1], ROUND)
        elif token == "]" and inner == "[":
            weigh(parts, opened.pop()[1], SQUARE)
        elif token.strip() == "BREAK":
            parts.append(Part("", breaks=True))
        else:
            parts.append(Part(token[1:] if len(token) == 2 and token[0] == "\\" else token))
    for bracket, start in opened:
        weigh(parts, start, ROUND if bracket == "(" else SQUARE)
    return merge(parts) or [Part("")]


def weigh(parts: list[Part], start: int, factor: float) -> None:
    """Multiply the weights from `start` on."""
    parts[start:] = [part if part.breaks else replace(part, weight=part.weight * factor) for part in parts[start:]]


def merge(parts: list[Part]) -> list[Part]:
    """Join neighbours of equal weight."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last and not last.breaks and not part.breaks and last.weight == part.weight:
            merged[-1] = replace(last, text=last.text + part.text)
        else:
            merged.append(part)
    return merged
