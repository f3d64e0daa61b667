"""Whatever text a caller sends: it is read, or refused with an error of ours. JSON is measured rightly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.middleware.parse_limits import check_json, measure_depth, read_between_strings
from tests.fuzz.parsers import TEXT_PARSERS, answers

PIECES = [
    "(",
    ")",
    "[",
    "]",
    "\\",
    ":",
    ":1.3)",
    ":9e9)",
    "BREAK",
    "Steps: ",
    "Size: 3x4",
    '"',
    ",",
    "Negative prompt: ",
]
PIECES += [
    "<lora:",
    ":1>",
    ">",
    "\n",
    "\0",
    "\ud800",
    "data:image/png;base64,",
    "euler",
    " Karras",
    "DPM++ 2M",
    "=",
    "\u0661",
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=())), max_size=30).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text('"\\[]{},: a\u00e9\U0001f600', max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("name", TEXT_PARSERS)
@given(text=TEXT)
def test_any_text(name: str, text: str) -> None:
    answers(TEXT_PARSERS[name], text)


def depth(value: object) -> int:
    """How deep lists and objects nest."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.booleans())
def test_the_depth_of_json_is_measured(value: object, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    check_json(body)
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    assert measure_depth(read_between_strings(plain)[0]) == depth(value)


@given(st.binary())
def test_any_bytes_are_measured(body: bytes) -> None:
    answers(check_json, body)
