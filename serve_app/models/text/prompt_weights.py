"""AUTOMATIC1111's prompt syntax: `(more)`, `[less]`, `(word:1.3)`, escapes and `BREAK`."""

import re
from dataclasses import dataclass, replace

ROUND, SQUARE = 1.1, 1 / 1.1
TOKEN = re.compile(
    r"""\\[\\()\[\]]                        # an escaped bracket or backslash
    | [()\[\]]
    | \s*\bBREAK\b\s*
    | :\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)   # the end of (word:1.3)
    | [^\\()\[\]:B\s]+
    | .""",
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Part:
    """A piece of the prompt and its weight. With `breaks` it ends the chunk and has no text."""

    text: str
    weight: float = 1.0
    breaks: bool = False


def parse_weights(prompt: str) -> list[Part]:
    """Split the prompt into parts of equal weight, as AUTOMATIC1111's `parse_prompt_attention` does.

    A bracket that is never closed weights the rest; a closing bracket without an opening one is text.
    """
    parts: list[Part] = []
    opened: list[tuple[str, int]] = []
    for token in TOKEN.findall(prompt):
        if token in ("(", "["):
            opened.append((token, len(parts)))
        elif token.startswith(":") and token.endswith(")") and _opens(opened, "("):
            _weigh(parts, opened.pop()[1], float(token[1:-1]))
        elif token == ")" and _opens(opened, "("):
            _weigh(parts, opened.pop()[1], ROUND)
        elif token == "]" and _opens(opened, "["):
            _weigh(parts, opened.pop()[1], SQUARE)
        elif token.strip() == "BREAK":
            parts.append(Part("", breaks=True))
        else:
            parts.append(Part(token[1:] if len(token) == 2 and token[0] == "\\" else token))
    for bracket, start in opened:
        _weigh(parts, start, ROUND if bracket == "(" else SQUARE)
    return _merge(parts) or [Part("")]


def _opens(opened: list[tuple[str, int]], bracket: str) -> bool:
    return bool(opened) and opened[-1][0] == bracket


def _weigh(parts: list[Part], start: int, factor: float) -> None:
    parts[start:] = [part if part.breaks else replace(part, weight=part.weight * factor) for part in parts[start:]]


def _merge(parts: list[Part]) -> list[Part]:
    """Join neighbours of equal weight."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last and not last.breaks and not part.breaks and last.weight == part.weight:
            merged[-1] = replace(last, text=last.text + part.text)
        else:
            merged.append(part)
    return merged
