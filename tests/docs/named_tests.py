"""The tests that a page names as proof of what it says."""

import ast
import re

from tests.docs.blocks import ROOT

TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def find_missing_tests(page: str) -> list[str]:
    """Those that the page names and that do not exist."""
    tests: dict[str, set[str]] = {}
    named = TEST_ID.findall(page)
    for file in {file for file, _ in named}:
        nodes = ast.walk(ast.parse((ROOT / file).read_text())) if (ROOT / file).exists() else []
        tests[file] = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return [f"{file}::{name}" for file, name in named if name not in tests[file]]
