"""Every mistake in a Serve config file: in its YAML, in what Serve reads of it, and in what Darkroom reads of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from serve_app.cli.local_files import find_missing_files
from serve_app.cli.serve_sections import find_serve_mistakes
from serve_app.cli.yaml_file import read_yaml
from serve_app.config.mistakes import join, name_of
from serve_app.config.serve_file import IMPORT_PATH, find_application_mistakes
from serve_app.errors import ConfigError


def check_file(path: Path, *, ignore_paths: bool = False) -> Mapping[str, Any]:
    """The content of a file without mistakes. No model is loaded, and no cluster is asked.

    With `ignore_paths`, a model's path need not exist on this machine.

    Raises:
        ConfigError: has a line for each mistake, all of them at once.
    """
    document = read_yaml(path)
    if not isinstance(document, Mapping):
        raise ConfigError("must be keys with values, such as applications:")
    mistakes = [*find_serve_mistakes(document), *_find_our_mistakes(document, ignore_paths)]
    prefix = _common_prefix(document)
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(line.removeprefix(prefix) for line in mistakes)))
    return document


def _common_prefix(document: Mapping[str, Any]) -> str:
    """The beginning of the paths that messages leave out: where there is one application, everything is its."""
    applications = _applications(document)
    return f"applications.{name_of(0, applications[0])}." if len(applications) == 1 else ""


def _find_our_mistakes(document: Mapping[str, Any], ignore_paths: bool) -> Iterator[str]:
    applications = _applications(document)
    paths = [application.get("import_path") for application in applications]
    for index, application in enumerate(applications):
        at = join("applications", name_of(index, application))
        if paths[index] == IMPORT_PATH:
            yield from find_application_mistakes(application, at)
            yield from find_missing_files(application, f"{at}.", paths=not ignore_paths, mounted=False)
        elif str(paths[index]).startswith("serve_app"):
            yield f"{at}.import_path: must be {IMPORT_PATH}, got {paths[index]!r}"
    if applications and not any(str(path).startswith("serve_app") for path in paths):
        yield f"applications: must have an entry with import_path: {IMPORT_PATH}"


def _applications(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = document.get("applications")
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
