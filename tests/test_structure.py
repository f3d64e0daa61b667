"""The tree is what docs/architecture.md says: one name for each thing, and no module that is too long to read."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "serve_app"
FILES = sorted(PACKAGE.rglob("*.py"))
SHARED_FILE_NAMES = {"__init__.py", "__main__.py", "app.py", "schemas.py", "routes.py"}
SHARED_NAMES = {"router", "load", "main"}
"""Each routes module has `router(dispatcher)`, each model family `load(checkpoint)`, each program `main()`."""
MAX_FILE_LINES, MAX_FUNCTION_LINES = 250, 40
LONG_FUNCTIONS = {"router"}
"""Functions that only hold small handlers side by side."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_no_two_files_have_the_same_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        if path.name not in SHARED_FILE_NAMES:
            found[path.name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_no_public_class_or_function_is_defined_twice() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        for node in parse(path).body:
            if isinstance(node, Definition) and not node.name.startswith("_") and node.name not in SHARED_NAMES:
                found[node.name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {one.name: (one.end_lineno or 0) - one.lineno + 1 for one in functions if one.name not in LONG_FUNCTIONS}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_every_package_says_what_lives_there() -> None:
    packages = [path for path in FILES if path.name == "__init__.py"]
    assert [str(path.parent.relative_to(PACKAGE)) for path in packages if not ast.get_docstring(parse(path))] == []


def test_there_is_one_broad_except() -> None:
    broad = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    ]
    assert len(broad) <= 1, broad


def test_every_exception_to_a_security_rule_says_why() -> None:
    bare = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in FILES
        for line in path.read_text().splitlines()
        if re.search(r"# noqa: [^#]*\bS\d+", line) and not re.search(r"# noqa: [^#]+ # \w", line)
    ]
    assert bare == []
