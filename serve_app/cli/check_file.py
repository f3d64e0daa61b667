"""Every mistake in a Serve config file: in its YAML, in what Serve reads of it, and in what Darkroom reads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.config.mistakes import find_mistakes, join, name_of
from serve_app.config.serve_file import IMPORT_PATH, find_application_mistakes, options_by_name

PACKAGE = Path(__file__).parents[1]
BUILTIN_CONFIG = next(
    (path for path in (PACKAGE / "configs" / "local.yaml",) if path.exists()),
    PACKAGE.parent / "configs" / "local.yaml",
)
"""The built-in model's config: in the package of a wheel, or beside the package in a checkout."""

PATH_KEYS = ("source", "config", "vae", "preview", "checker")
"""Keys of a `user_config` that may hold a path instead of a hub id."""


@dataclass(frozen=True)
class CheckedFile:
    """A file's content, a line for each mistake, and a line for each thing that may be missing elsewhere only."""

    document: Mapping[str, Any] = field(default_factory=dict)
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_file(path: Path) -> CheckedFile:
    """Read a file and find all of its mistakes. No model is loaded, and no cluster is asked."""
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        return CheckedFile(mistakes=(f"cannot be read: {error.strerror}",))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return CheckedFile(mistakes=(f"must be YAML: {' '.join(str(error).split())}",))
    if not isinstance(document, Mapping):
        return CheckedFile(mistakes=("must be keys with values, such as `applications:`",))
    mistakes = [*find_mistakes(ServeDeploySchema, document)]
    applications = document.get("applications")
    warnings: list[str] = []
    for index, application in enumerate(applications if isinstance(applications, list) else []):
        if isinstance(application, Mapping):
            at = join("applications", name_of(index, application))
            mistakes += find_scaling_mistakes(application, at)
            if application.get("import_path") == IMPORT_PATH:
                mistakes += find_application_mistakes(application, at)
                warnings += find_missing_paths(application, at)
    return CheckedFile(document, tuple(dict.fromkeys(mistakes)), tuple(warnings))


def find_scaling_mistakes(application: Mapping[str, Any], path: str) -> Iterator[str]:
    """Numbers of replicas that contradict each other, which Serve accepts."""
    for name, options in options_by_name(application).items():
        scaling = options.get("autoscaling_config")
        if not isinstance(scaling, Mapping):
            continue
        key = f"{join(path, 'deployments')}.{name}.autoscaling_config"
        least, most = scaling.get("min_replicas", 1), scaling.get("max_replicas", 1)
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield f"{key}.min_replicas: must be at most max_replicas ({most}), got {least}"


def find_missing_paths(application: Mapping[str, Any], path: str) -> Iterator[str]:
    """Local files and folders that are named and are not on this machine."""
    for name, options in options_by_name(application).items():
        settings = options.get("user_config")
        if not isinstance(settings, Mapping):
            continue
        named = {key: settings.get(key) for key in PATH_KEYS}
        for group, keys in (("loras", None), ("embeddings", None), ("keys", "file"), ("results", "secret_file")):
            values = settings.get(group)
            if isinstance(values, Mapping):
                named |= {f"{group}.{key}": value for key, value in values.items() if keys in (None, key)}
        for key, value in named.items():
            if isinstance(value, str) and value.startswith((".", "/", "~")) and not Path(value).expanduser().exists():
                yield f"{join(path, 'deployments')}.{name}.user_config.{key}: {value} does not exist on this machine"
