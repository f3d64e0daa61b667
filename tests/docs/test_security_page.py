"""docs/security.md: every threat names the tests that stand for it, and they exist."""

import ast
import re

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_named_test_exists() -> None:
    named = TEST_ID.findall(PAGE)
    assert len(named) > 20
    tests: dict[str, set[str]] = {}
    for file in {file for file, _ in named}:
        nodes = ast.walk(ast.parse((ROOT / file).read_text())) if (ROOT / file).exists() else []
        tests[file] = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert [f"{file}::{name}" for file, name in named if name not in tests[file]] == []


def test_every_threat_names_a_test() -> None:
    tables = re.findall(r"^\| threat \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(tables) == 3
    assert [row for row in rows if not TEST_ID.search(row.split("|")[-2])] == []
