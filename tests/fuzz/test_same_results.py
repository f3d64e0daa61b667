"""The linear parsers find what the slow ones found, to the last bit of a weight."""

from hypothesis import assume, given
from hypothesis import strategies as st

from serve_app.api.infotext import read_infotext
from serve_app.errors import InvalidRequest
from serve_app.models.text.prompt_weights import MAX_WEIGHT, parse_weights
from tests.fuzz.slow_parsers import slow_fields, slow_weights

PIECES = [
    "(",
    ")",
    "[",
    "]",
    "\\",
    ":",
    ":1.3)",
    ": 0.5 )",
    ":-2)",
    ":.5)",
    ":1.)",
    "BREAK",
    " ",
    "\n",
    "B",
    "a",
    "1",
    ",",
]
SYNTAX = st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=40).map("".join)
FIELDS = st.lists(
    st.sampled_from(['"', ",", ":", "\\", " ", "a", "b(c)", ": ", '"x, y"', "\t", "+", "?", "Size: 3x4"])
    | st.text(max_size=2),
    max_size=40,
).map("".join)


@given(SYNTAX)
def test_weights(prompt: str) -> None:
    expected = slow_weights(prompt)
    try:
        assert parse_weights(prompt) == expected
    except InvalidRequest:
        assert any(not abs(part.weight) <= MAX_WEIGHT for part in expected)


@given(FIELDS)
def test_fields_of_an_infotext(line: str) -> None:
    assume("\n" not in line)
    found = read_infotext(f"Steps: 1, {line}")
    expected = slow_fields(f"Steps: 1, {line}")
    for key in ("Prompt", "Negative prompt", "Size", "Size-1", "Size-2"):
        found.pop(key, None)
        expected.pop(key, None)
    assert found == expected
