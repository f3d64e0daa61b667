"""Config files for tests: configs/local.yaml and configs/prod.yaml with changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
Section = dict[str, Any]


def deployment(document: Section, name: str) -> Section:
    """An entry of `deployments:` of the only application."""
    return next(one for one in document["applications"][0]["deployments"] if one["name"] == name)


def write_changed(path: Path, change: Callable[[Section], object], name: str = "local.yaml") -> Path:
    """A shipped config with a change, in a file of its own."""
    document = yaml.safe_load((CONFIGS / name).read_text())
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
