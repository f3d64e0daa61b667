"""README's code blocks, run as they stand."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Image.open(tmp_path / "apple.png").size == (128, 128)


def test_the_two_commands_are_the_ones_that_ci_and_the_serving_test_run() -> None:
    run, test = blocks("sh")
    assert run.strip() == "pip install -c constraints.txt -e . && serve run configs/local.yaml"
    assert test.strip() == "pip install -c constraints.txt -e '.[dev]' && pytest"
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
