"""AUTOMATIC1111's prompt syntax: `(more)`, `[less]`, `(word:1.3)`, escapes and `BREAK`. One pass over the prompt."""

import math
import re
from dataclasses import dataclass

from serve_app.errors import InvalidRequest

ROUND, SQUARE = 1.1, 1 / 1.1
TOKEN = re.compile(
    r"""\\[\\()\[\]]                              # an escaped bracket or backslash
    | [()\[\]]
    | (?:\s++|\b)BREAK\b\s*+
    | \s++
    | :\s*+[+-]?(?:\d++\.?\d*+|\.\d++)\s*+\)     # the end of (word:1.3)
    | [^\\()\[\]:B\s]++
    | .""",
    re.DOTALL | re.VERBOSE,
)
"""Nothing is given back once it has matched (`++`), so that no prompt makes the search go over it twice."""

MAX_WEIGHT = 100.0
"""The largest absolute weight: far over any that is of use, far under what float16 can hold."""
MAX_DEPTH = 64
"""The most brackets that may be open at once. As many alone multiply the weight by 445."""


@dataclass(frozen=True)
class Part:
    """A piece of the prompt and its weight. With `breaks` it ends the chunk and has no text."""

    text: str
    weight: float = 1.0
    breaks: bool = False


@dataclass
class _Bracket:
    """An opening bracket, the one around it, and what it multiplies the weight of its content by."""

    kind: str
    outer: "_Bracket | None"
    depth: int
    factor: float
    closed: bool = False
    weight: float = 1.0


def parse_weights(prompt: str) -> list[Part]:
    """Split the prompt into parts of equal weight, as AUTOMATIC1111's `parse_prompt_attention` does.

    A bracket that is never closed weights the rest; a closing bracket without an opening one is text.

    Raises:
        InvalidRequest: names `prompt`. A weight is over `MAX_WEIGHT` or more than `MAX_DEPTH` brackets are open.
    """
    brackets: list[_Bracket] = []
    texts: list[tuple[str, _Bracket | None]] = []
    open_: _Bracket | None = None
    for piece in TOKEN.findall(prompt):
        factor = _closes(piece, open_)
        if open_ is not None and factor is not None:
            open_.factor, open_.closed = factor, True
            open_ = open_.outer
        elif piece in ("(", "["):
            open_ = _Bracket(piece, open_, open_.depth + 1 if open_ else 1, ROUND if piece == "(" else SQUARE)
            if open_.depth > MAX_DEPTH:
                raise InvalidRequest("prompt", prompt, f"must have at most {MAX_DEPTH} brackets open at once")
            brackets.append(open_)
        else:
            texts.append((piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece, open_))
    for bracket in brackets:
        bracket.weight = _multiply(bracket)
    return _merge(prompt, texts)


def _closes(piece: str, open_: _Bracket | None) -> float | None:
    """The factor that `piece` gives the innermost open bracket; None where it does not close it."""
    if open_ is None or piece[-1] not in ")]" or piece[0] == "\\":
        return None
    if piece == "]":
        return SQUARE if open_.kind == "[" else None
    if open_.kind == "[":
        return None
    return ROUND if piece == ")" else float(piece[1:-1])


def _multiply(bracket: _Bracket) -> float:
    """The product of all factors around a text, in AUTOMATIC1111's order: floats are equal to the last bit.

    Brackets count from the inside out, as they close; those that are never closed count after them, as they opened.
    """
    weight, unclosed = 1.0, []
    around: _Bracket | None = bracket
    while around is not None:
        if around.closed:
            weight *= around.factor
        else:
            unclosed.append(around.factor)
        around = around.outer
    return math.prod(reversed(unclosed), start=weight)


def _merge(prompt: str, texts: list[tuple[str, _Bracket | None]]) -> list[Part]:
    """The texts with their weights, neighbours of equal weight joined. Refuses weights out of range."""
    parts: list[Part] = []
    joined: list[str] = []
    weight = 1.0

    def end() -> None:
        if joined:
            parts.append(Part("".join(joined), weight))
            joined.clear()

    for text, bracket in texts:
        if text.strip() == "BREAK":
            end()
            parts.append(Part("", breaks=True))
            continue
        own = 1.0 if bracket is None else bracket.weight
        if not abs(own) <= MAX_WEIGHT:
            limit = f"must have weights from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, brackets multiplied"
            raise InvalidRequest("prompt", f"{text} with weight {own:g}", limit)
        if own != weight:
            end()
            weight = own
        joined.append(text)
    end()
    return parts or [Part("")]
