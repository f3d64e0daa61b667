"""Engines over families that tests can watch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.engine.engine import Engine
from serve_app.models.load_family import load_family
from tests.conftest import tiny_config
from tests.engine.spied import Spied


@pytest.fixture
def spied(tiny_sd: Path) -> Iterator[tuple[Engine, Any]]:
    config = tiny_config(tiny_sd)
    family = Spied(load_family(config))
    with Engine(family, config) as engine:
        family.forget()
        yield engine, family
