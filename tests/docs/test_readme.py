"""README is a front door: short, and its commands and numbers are the true ones."""

import re
import subprocess

from tests.docs.blocks import ROOT, read_blocks

README = ROOT / "README.md"
MAX_WORDS = 700


def test_readme_is_short() -> None:
    assert len(README.read_text().split()) <= MAX_WORDS


def test_the_two_commands_are_the_ones_that_ci_and_the_serving_test_run() -> None:
    run, test = (block.text.strip() for block in read_blocks("sh", pages=[README]))
    assert run == "pip install -c constraints.txt -e . && serve run configs/local.yaml"
    assert test == "pip install -c constraints.txt -e '.[dev]' && pytest"
    (grep,) = re.findall(r"grep [^)]*README\.md", (ROOT / ".ci" / "run").read_text())
    found = subprocess.run(["bash", "-c", grep], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found.strip() == test


def test_the_benchmark_table_is_the_reports() -> None:
    """Ratios to two digits, as the report has them."""
    rows = re.findall(r"^\| (.+) \|$", README.read_text().partition("## How fast")[2], re.MULTILINE)
    report = (ROOT / "benchmarks" / "results" / "serving.md").read_text()
    names = {"**Darkroom**": "Darkroom", "OpenVINO GenAI, one at a time": "OpenVINO GenAI"}
    names |= {"Ray `@serve.batch`, equal parameters": "Ray @serve.batch", "LitServe, equal parameters": "LitServe"}
    checked = 0
    for row in rows:
        name, *cells = (cell.strip() for cell in row.split("|"))
        if name in names:
            (theirs,) = re.findall(rf"^\| {re.escape(names[name])} \| (\d.+) \|$", report, re.MULTILINE)[:1]
            assert cells == [cell.strip() for cell in theirs.split("|")][:5], name
            checked += 1
    assert checked == len(names)
