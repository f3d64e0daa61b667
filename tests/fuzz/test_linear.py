"""No text that a caller sends takes more than linear time: twice the text takes at most three times as long."""

import time
from collections.abc import Callable

import pytest

from tests.fuzz.parsers import HOSTILE, TEXT_PARSERS, answers

LONG_ENOUGH_S = 0.01
"""Shorter runs cannot be compared."""
MOST_CHARACTERS = 1 << 19
TRIES = 4


def seconds(parse: Callable[[str], object], text: str) -> float:
    began = time.perf_counter()
    answers(parse, text)
    return time.perf_counter() - began


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("parser", TEXT_PARSERS)
def test_twice_the_text_takes_at_most_three_times_as_long(parser: str, hostile: str) -> None:
    parse, make = TEXT_PARSERS[parser], HOSTILE[hostile]
    characters = 256
    while seconds(parse, make(characters)) < LONG_ENOUGH_S and characters < MOST_CHARACTERS:
        characters *= 2
    once, twice = make(characters), make(2 * characters)
    for _ in range(TRIES):
        if min(seconds(parse, twice) for _ in range(2)) <= 3 * max(seconds(parse, once), LONG_ENOUGH_S / 2):
            return
    pytest.fail(f"{parser}: {characters} characters of {hostile}: more than linear")
