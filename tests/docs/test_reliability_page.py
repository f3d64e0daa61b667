"""docs/reliability.md: every fault names the tests that stand for it, and they exist."""

import re

from tests.docs.blocks import ROOT
from tests.docs.named_tests import TEST_ID, find_missing_tests

PAGE = (ROOT / "docs" / "reliability.md").read_text()
NOT_TESTED = {"3", "4", "9", "10", "12", "13", "16", "17"}
"""By a fault test. The page says so."""


def test_every_named_test_exists() -> None:
    assert find_missing_tests(PAGE) == []


def test_every_fault_names_a_test_or_says_that_it_has_none() -> None:
    (table,) = re.findall(r"^\| # \| fault \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = {row.split("|")[1].strip(): row for row in table.splitlines()}
    assert list(rows) == [str(number) for number in range(1, 19)]
    assert {number for number, row in rows.items() if not TEST_ID.search(row)} == NOT_TESTED
    assert all("not tested" in rows[number] for number in NOT_TESTED)
