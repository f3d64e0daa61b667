"""CONTRIBUTING's diffs apply to the tree as it is, and what they add can be used."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, read_blocks

DIFFS = [block.text for block in read_blocks("diff", pages=[ROOT / "CONTRIBUTING.md"])]
COPIED = ("serve_app", "tests", "docs", "pyproject.toml")
MAX_LINES_OF_A_SAMPLER = 1


def changed_files(diff: str) -> dict[str, int]:
    """Each file's number of added lines."""
    found, name = {}, ""
    for line in diff.splitlines():
        if line.startswith("+++ "):
            name = line.removeprefix("+++ b/")
            found[name] = 0
        elif line.startswith("+"):
            found[name] += 1
    return found


@pytest.fixture(scope="module")
def changed_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, without the weights, and with every diff applied."""
    tree = tmp_path_factory.mktemp("tree")
    weights = Path("serve_app", "builtin", "emoji")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "emoji", "*.png"))
        else:
            shutil.copy(source, tree / name)
    (tree / weights).symlink_to(ROOT / weights)
    for diff in DIFFS:
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tree, check=True)
    return tree


@pytest.fixture(scope="module")
def used(changed_tree: Path) -> dict[str, Any]:
    """What came of using the changed tree in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(changed_tree)}
    out = changed_tree / "used.json"
    command = [sys.executable, "-m", "tests.docs.use_contributions", str(out)]
    subprocess.run(command, cwd=changed_tree, env=environment, check=True)
    return json.loads(out.read_text())


def test_each_contribution_is_as_small_as_the_page_says() -> None:
    sampler, family, route, row_value = (changed_files(diff) for diff in DIFFS)
    assert list(sampler.values()) == [MAX_LINES_OF_A_SAMPLER]
    assert [added for path, added in family.items() if path.endswith("load_family.py")] == [1]
    assert len(family) == len(route) == 2
    assert all((ROOT / path).exists() for path in row_value)
    assert len(row_value) == 2


def test_the_new_sampler_draws_and_is_listed(used: dict[str, Any]) -> None:
    assert used["sampler_spread"] > 10
    assert "DPM++ 3M" in used["sampler_labels"]
    assert "Sampler: DPM++ 3M," in used["infotext"]


def test_the_new_family_draws_from_text_and_from_an_image(used: dict[str, Any]) -> None:
    assert used["family_shape"] == [64, 64, 3]
    assert min(used["family_spreads"]) > 10


def test_the_new_route_answers(used: dict[str, Any]) -> None:
    assert "karras" in used["route_answer"]["dpmpp_3m"]


def test_the_new_row_value_is_in_every_schema_and_acts_on_its_row_only(
    used: dict[str, Any], changed_tree: Path
) -> None:
    assert "s_noise" in used["openapi_fields"]
    assert used["asked"] == [0.5, 0.25]
    assert re.search(r"Sigma noise: 0\.5\b", used["infotext"])
    assert re.search(r"Sigma noise: 0\.25\b", used["preset_infotext"])
    assert used["row_changed"]
    assert not used["neighbour_changed"]


def test_the_pages_follow_the_declarations(changed_tree: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(changed_tree)}
    subprocess.run([sys.executable, "docs/make.py"], cwd=changed_tree, env=environment, check=True)
    api = (changed_tree / "docs" / "api.md").read_text()
    assert "| `s_noise` | number, 0 to 2 | `1.0` |" in api
    assert "| `dpmpp_3m` | DPM++ 3M |" in api
    assert "| `GET /v1/samplers` |" in api
