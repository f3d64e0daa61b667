"""Darkroom's part of a Serve config file: `args` and every `user_config` of an application, checked together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from serve_app.config.application import AppConfig, SafetyConfig
from serve_app.config.gpus import find_missing_gpus, max_replicas
from serve_app.config.ingress_config import IngressConfig
from serve_app.config.mistakes import find_mistakes, join, suggest
from serve_app.config.model import ModelConfig
from serve_app.config.names import INGRESS, SAFETY, deployment_of
from serve_app.config.request_checks import find_unusable_settings
from serve_app.config.strict import Strict
from serve_app.errors import ConfigError
from serve_app.requests.capabilities import ModelCapabilities

IMPORT_PATH = "serve_app.app:build"
FUSES = ("max_ongoing_requests", "max_queued_requests")
NO_LIMIT = (
    "must not be given for a model: the ingress keeps its queue (max_waiting), and Serve's limits are a fuse far above"
)


@dataclass(frozen=True)
class DarkroomConfig:
    """An application of ours, valid. `safety` is None where it has no safety checker."""

    app: AppConfig
    ingress: IngressConfig
    models: Mapping[str, ModelConfig]
    safety: SafetyConfig | None


def read_serve_file(path: Path) -> list[DarkroomConfig]:
    """Darkroom's applications in a Serve config file.

    Raises:
        ConfigError: has a line for each mistake.
    """
    applications = yaml.safe_load(path.read_text())["applications"]
    return [read_application(one) for one in applications if one["import_path"] == IMPORT_PATH]


def read_application(application: Mapping[str, Any]) -> DarkroomConfig:
    """One entry of `applications:`.

    Raises:
        ConfigError: has a line for each mistake.
    """
    mistakes = find_application_mistakes(application)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    app = AppConfig.model_validate(application["args"])
    settings = {name: options.get("user_config") or {} for name, options in options_by_name(application).items()}
    return DarkroomConfig(
        app=app,
        ingress=IngressConfig.model_validate(settings.get(INGRESS, {})),
        models={name: ModelConfig.model_validate(settings[deployment_of(name)]) for name in app.models},
        safety=SafetyConfig.model_validate(settings.get(SAFETY, {})) if app.safety else None,
    )


def find_application_mistakes(application: Mapping[str, Any], path: str = "") -> list[str]:
    """A line for each mistake in what Darkroom reads of an entry of `applications:` that stands at `path`."""
    arguments = application.get("args") or {}
    found = find_mistakes(AppConfig, arguments, join(path, "args"))
    sections = arguments if isinstance(arguments, Mapping) else {}
    names = sections.get("models")
    names = tuple(str(name) for name in names) if isinstance(names, Mapping) else ()
    kinds: dict[str, type[Strict]] = {INGRESS: IngressConfig, **{deployment_of(name): ModelConfig for name in names}}
    if sections.get("safety") is not None:
        kinds[SAFETY] = SafetyConfig
    options = options_by_name(application)
    for deployment in options:
        if deployment not in kinds:
            found.append(f"{join(path, f'deployments.{deployment}')}: is not a deployment{suggest(deployment, kinds)}")
    for deployment, kind in kinds.items():
        if kind is ModelConfig:
            given = [key for key in FUSES if key in options.get(deployment, {})]
            found += [f"{join(path, f'deployments.{deployment}.{key}')}: {NO_LIMIT}" for key in given]
        values = options.get(deployment, {}).get("user_config")
        key = join(path, f"deployments.{deployment}.user_config")
        found += find_mistakes(kind, {} if values is None else values, key)
    return found + list(_find_contradictions(arguments, options, path))


def options_by_name(application: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of an application's `deployments:` that have a name."""
    entries = application.get("deployments")
    sections = [one for one in entries if isinstance(one, Mapping)] if isinstance(entries, list) else []
    return {one["name"]: one for one in sections if isinstance(one.get("name"), str)}


def _find_contradictions(arguments: object, options: Mapping[str, Mapping[str, Any]], path: str) -> Iterator[str]:
    """What is sound by itself, but not together with the rest. Keys that are wrong by themselves are left out."""
    app = _read(AppConfig, arguments)
    if app is None:
        return
    yield from (f"{join(path, 'args')}.{line}" for line in find_missing_gpus(app, options))
    ingress = _read_sound_keys(IngressConfig, options.get(INGRESS, {}).get("user_config"))
    if ingress is None:
        return
    key = join(path, f"deployments.{INGRESS}.user_config")
    several = max_replicas(options.get(INGRESS, {})) > 1
    contradictions = ingress.find_contradictions(tuple(app.models), app.safety is not None, several)
    yield from (f"{key}.{line}" for line in contradictions)
    ingress = ingress.with_default_model(next(iter(app.models)))
    for name in app.models:
        values = options.get(deployment_of(name), {}).get("user_config")
        model = _read_sound_keys(ModelConfig, values, source="unknown")
        if model is not None:
            facts = ModelCapabilities(
                native_size=model.native_size, loras=tuple(model.loras), embeddings=tuple(model.embeddings)
            )
            yield from (f"{key}.{line}" for line in find_unusable_settings(ingress, name, facts))


def _read_sound_keys(kind: type[Strict], values: object, **required: object) -> Any:
    """A section without the keys that are wrong. `required` holds values for keys that must be given."""
    given = values if isinstance(values, Mapping) else {}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        wrong = {entry["loc"][0] for entry in error.errors() if entry["loc"]}
    return _read(kind, {**required, **{key: value for key, value in given.items() if key not in wrong}})


def _read(kind: type[Strict], values: object) -> Any:
    try:
        return kind.model_validate({} if values is None else values)
    except ValidationError:
        return None
