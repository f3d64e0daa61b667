"""Files and folders of this machine that a config names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from serve_app.builtin import BUILTIN_MODELS
from serve_app.config.hub import is_local
from serve_app.config.serve_file import options_by_name

MODEL_FILES = ("source", "config", "vae", "preview", "checker", "loras", "embeddings")
"""Keys of a `user_config` whose value is a path or a hub id, or paths by name."""
MOUNTED_FILES = {"keys": "file", "results": "secret_file"}
"""Sections of the ingress' `user_config`, and the key of a file that only the machine of the server has."""


def find_missing_files(
    application: Mapping[str, Any], path: str = "", *, paths: bool = True, mounted: bool = True
) -> Iterator[str]:
    """A line for each that does not exist, and for each built-in model that does not.

    Args:
        application: an entry of `applications:`.
        path: where it stands in the file; it ends with a dot.
        paths: whether paths must exist here.
        mounted: whether those of `MOUNTED_FILES` must exist as well.
    """
    for name, options in options_by_name(application).items():
        for key, value in _named_files(options.get("user_config"), mounted):
            if not isinstance(value, str):
                continue
            kind, _, model = value.partition(":")
            at = f"{path}deployments.{name}.user_config.{key}"
            if kind == "builtin" and model not in BUILTIN_MODELS:
                known = ", ".join(f"builtin:{one}" for one in BUILTIN_MODELS)
                yield f"{at}: must be one of {known}, a path or a hub id, got {value!r}"
            elif paths and is_local(value) and not Path(value).expanduser().exists():
                yield f"{at}: must exist on this machine, got {value!r}"


def _named_files(settings: object, mounted: bool) -> Iterator[tuple[str, object]]:
    if not isinstance(settings, Mapping):
        return
    for key in MODEL_FILES:
        value = settings.get(key)
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", one) for name, one in value.items())
        else:
            yield key, value
    for section, key in MOUNTED_FILES.items() if mounted else ():
        values = settings.get(section)
        if isinstance(values, Mapping):
            yield f"{section}.{key}", values.get(key)
