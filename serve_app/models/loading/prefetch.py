"""`python -m serve_app.models.loading.prefetch CONFIG.yaml`: fetch every model's files into the hub's cache, before serving.

What a Kubernetes initContainer runs, so that replicas start from a volume and without a network.
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import yaml

from serve_app.config import AppConfig
from serve_app.models.loading.sources import find_checkpoint, find_part

log = logging.getLogger("darkroom.prefetch")


def read_apps(path: Path) -> Iterator[AppConfig]:
    """The `args` of every application in a Serve config."""
    for application in yaml.safe_load(path.read_text())["applications"]:
        yield AppConfig.model_validate(application["args"])


def prefetch(config: AppConfig) -> list[Path]:
    """Fetch or find what one application needs; raises ModelLoadError."""
    found = []
    for model in config.models.values():
        found.append(find_checkpoint(model))
        if model.vae is not None:
            found.append(find_part("vae", model.vae))
        if model.preview is not None:
            found.append(find_part("preview", model.preview))
    if config.checks_safety:
        found.append(find_part("safety.checker", config.safety.checker))
    return found


def main() -> None:
    """Fetch everything the config names."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.models.loading.prefetch", description=__doc__)
    parser.add_argument("config", type=Path)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for config in read_apps(parser.parse_args().config):
        for path in prefetch(config):
            log.info("%s", path)


if __name__ == "__main__":
    main()
