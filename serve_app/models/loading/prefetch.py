"""`python -m serve_app.models.loading.prefetch CONFIG.yaml`: fetch every model's files into the hub's cache.

A Kubernetes initContainer runs it, so that replicas start from a volume and without a network.
"""

import argparse
import logging
from pathlib import Path

from serve_app.config.serve_file import DarkroomConfig, read_serve_file
from serve_app.models.loading.sources import find_checker, find_checkpoint, find_part

log = logging.getLogger("darkroom.prefetch")


def prefetch(config: DarkroomConfig) -> list[Path]:
    """Fetch or find what one application needs. Raises ModelLoadError."""
    found = []
    for model in config.models.values():
        found.append(find_checkpoint(model))
        if model.vae is not None:
            found.append(find_part("vae", model.vae, model.vae_revision))
        if model.preview is not None:
            found.append(find_part("preview", model.preview, model.preview_revision))
    if config.safety is not None:
        found.append(find_checker(config.safety))
    return found


def main() -> None:
    """Fetch everything the config names."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.models.loading.prefetch", description=__doc__)
    parser.add_argument("config", type=Path)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for config in read_serve_file(parser.parse_args().config):
        for path in prefetch(config):
            log.info("%s", path)


if __name__ == "__main__":
    main()
