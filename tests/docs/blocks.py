"""The code blocks of the pages, by language.

`sh`: commands, parsed. `bash` and `py`: sent to a server by tests/deployments/test_pages_served.py. `python`: run as it
stands. `yaml`: an excerpt of an application in a Serve config. `json`, `diff`: read by their own tests. Without a
language: nothing to run.
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "results" / "README.md",
]
LANGUAGES = {"sh", "bash", "py", "python", "yaml", "json", "diff", ""}
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, and what it says."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        """For the ids of tests."""
        return f"{self.page.relative_to(ROOT)}: {self.text.strip().splitlines()[0][:40]}"


def read_blocks(*languages: str, pages: list[Path] = PAGES) -> list[Block]:
    """The blocks in one of `languages`, all blocks without any."""
    found = [
        Block(page, language, textwrap.dedent(text))
        for page in pages
        for _, language, text in BLOCK.findall(page.read_text())
    ]
    return [block for block in found if not languages or block.language in languages]
