"""Which HTTP front end `darkroom serve` starts."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml


class FrontEnd(StrEnum):
    """What stands between callers and the ingress replicas."""

    HAPROXY = "haproxy"
    PYTHON = "python"


def choose_front_end(path: Path, wanted: FrontEnd | None) -> FrontEnd:
    """What the option says, else the environment; else HAProxy for models on GPUs, and Python for a laptop.

    HAProxy runs on Linux only, and Ray's has no TLS.
    """
    # Imported here, not above: it takes the time of pydantic, which --help does not need.
    from serve_app.config.ray_environment import names_front_end, runs_haproxy

    if wanted is not None:
        return wanted
    if names_front_end():
        return FrontEnd.HAPROXY if runs_haproxy() else FrontEnd.PYTHON
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return FrontEnd.PYTHON  # the check of the file says what is wrong with it
    fits = sys.platform == "linux" and not has_key(document, "ssl_certfile")
    return FrontEnd.HAPROXY if fits and has_key(document, "num_gpus") else FrontEnd.PYTHON


def has_key(document: Any, key: str) -> bool:
    """Whether a key has a value that is not zero or empty, anywhere in a document."""
    if isinstance(document, list):
        return any(has_key(one, key) for one in document)
    if not isinstance(document, dict):
        return False
    return bool(document.get(key)) or any(has_key(one, key) for one in document.values())
