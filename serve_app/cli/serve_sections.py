"""Mistakes in what Serve reads of a config file, which it ignores or finds only while it deploys."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from serve_app.config.mistakes import find_mistakes, find_unknown_keys, join, name_of
from serve_app.config.serve_file import options_by_name

AUTO_MAX_REPLICAS = 100
"""Serve's `max_replicas` with `num_replicas: auto`."""
IMPORTED = ("policy", "request_router_config", "deployment_actors")
"""Keys whose values name classes or functions."""


def find_serve_mistakes(document: Mapping[str, Any]) -> list[str]:
    """A line for each mistake."""
    found = list(_find_wrong_shapes(document))
    whole = not found
    found += [f"{key}: {text}" for key, text in find_unknown_keys(ServeDeploySchema, document)]
    if not whole:
        # Serve's own validators fail on wrong shapes with an AttributeError.
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found += find_mistakes(ServeDeploySchema, without_imports(document))
        for index, application in enumerate(document.get("applications") or []):
            at = join(join("applications", name_of(index, application)), "deployments")
            for name, options in options_by_name(application).items():
                found += _find_scaling_mistakes(options, join(join(at, name), "autoscaling_config"))
    return found


def without_imports(values: Any) -> Any:
    """The document without the operator's classes and functions, which Serve imports in order to validate them."""
    if isinstance(values, Mapping):
        return {key: without_imports(value) for key, value in values.items() if key not in IMPORTED}
    return [without_imports(value) for value in values] if isinstance(values, list) else values


def _find_wrong_shapes(document: Mapping[str, Any]) -> Iterator[str]:
    """Entries that are no sections, and deployments that have one name."""
    applications = document.get("applications")
    if applications is None:
        return
    yield from _find_non_sections(applications, "applications")
    for index, application in enumerate(applications if isinstance(applications, list) else []):
        entries = application.get("deployments") if isinstance(application, Mapping) else None
        if entries is None:
            continue
        at = join(join("applications", name_of(index, application)), "deployments")
        yield from _find_non_sections(entries, at)
        sections = [one for one in entries if isinstance(one, Mapping)] if isinstance(entries, list) else []
        counts = Counter(str(one.get("name")) for one in sections if "name" in one)
        yield from (f"{join(at, name)}: must be given once" for name, count in counts.items() if count > 1)


def _find_non_sections(entries: object, path: str) -> Iterator[str]:
    if not isinstance(entries, list):
        yield f"{path}: must be a list, got {entries!r}"
        return
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            yield f"{join(path, index)}: must be keys with values, got {entry!r}"


def _find_scaling_mistakes(options: Mapping[str, Any], path: str) -> Iterator[str]:
    """Serve's schema takes any keys with values for `autoscaling_config`."""
    scaling = options.get("autoscaling_config")
    if not isinstance(scaling, Mapping):
        return
    values = without_imports(scaling)
    default = AUTO_MAX_REPLICAS if options.get("num_replicas") == "auto" else 1
    least, most = values.get("min_replicas", 1), values.get("max_replicas", default)
    first = values.get("initial_replicas")
    order = {"min_replicas": least, **({"initial_replicas": first} if first is not None else {})}
    wrong = [key for key, value in order.items() if _exceeds(value, most)]
    yield from (f"{join(path, key)}: must be at most max_replicas ({most}), got {order[key]}" for key in wrong)
    if not wrong and _exceeds(least, first):
        yield f"{join(path, 'initial_replicas')}: must be at least min_replicas ({least}), got {first}"
    elif not wrong:
        yield from find_mistakes(AutoscalingConfig, {"max_replicas": most, **values}, path)


def _exceeds(value: object, limit: object) -> bool:
    return isinstance(value, int) and isinstance(limit, int) and value > limit
