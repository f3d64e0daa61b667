"""docs/security.md: every threat names the tests that stand for it, and they exist."""

import re

from tests.docs.blocks import ROOT
from tests.docs.named_tests import TEST_ID, find_missing_tests

PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_named_test_exists() -> None:
    assert len(TEST_ID.findall(PAGE)) > 20
    assert find_missing_tests(PAGE) == []


def test_every_threat_names_a_test() -> None:
    tables = re.findall(r"^\| threat \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) == 3
    assert [row for row in rows if not TEST_ID.search(row.split("|")[-2])] == []
