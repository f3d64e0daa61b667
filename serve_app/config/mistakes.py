"""One line for each mistake in a part of the configuration: the key's path, what is wrong, what is allowed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from serve_app.errors import ConfigError, shorten
from serve_app.requests.params import limit_of

Config = TypeVar("Config", bound=BaseModel)

LIMITS = {
    "dict_type": "must be keys with values",
    "list_type": "must be a list",
    "model_type": "must be keys with values",
    "too_short": "must have at least {min_length} entry",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must have at least {min_length} character",
}
"""Pydantic's kinds of error, and what is allowed."""

OWN_KEY = re.compile(r"[a-z_.]+: ")


def read_config(kind: type[Config], values: object, path: str) -> Config:
    """`values`, which stand at `path` of the configuration, as a `kind`.

    Raises:
        ConfigError: has a line for each mistake.
    """
    mistakes = find_mistakes(kind, values, path)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return kind.model_validate(values)


def find_mistakes(kind: type[BaseModel], values: object, path: str = "") -> list[str]:
    """A line for each mistake of `values`, which should be a `kind` and stand at `path` of the configuration."""
    found = [f"{key}: {text}" for key, text in find_unknown_keys(kind, values, path)]
    try:
        kind.model_validate(values)
    except ValidationError as error:
        entries = [entry for entry in error.errors() if entry["type"] != "extra_forbidden"]
        # A union has an entry for each of its members. One line for a key is enough.
        lines = {_key_of(entry["loc"], entry["type"], values, path): entry for entry in reversed(entries)}
        found += [_line(key, entry) for key, entry in reversed(lines.items())]
    return found


def find_unknown_keys(kind: Any, values: object, path: str = "") -> Iterator[tuple[str, str]]:
    """The path of each key that `kind` does not have, and a message. It also finds keys that `kind` ignores."""
    models = [one for one in _alternatives(kind) if isinstance(one, type) and issubclass(one, BaseModel)]
    if models and isinstance(values, Mapping):
        fields = {name: field for model in models for name, field in model.model_fields.items()}
        for key, value in values.items():
            if key in fields:
                yield from find_unknown_keys(fields[key].annotation, value, join(path, key))
            else:
                yield join(path, key), f"is not a key{suggest(str(key), fields)}"
        return
    for one in _alternatives(kind):
        origin, arguments = get_origin(one), get_args(one)
        if origin in (dict, Mapping) and len(arguments) == 2 and isinstance(values, Mapping):
            for key, value in values.items():
                yield from find_unknown_keys(arguments[1], value, join(path, key))
        elif origin in (list, tuple, Sequence) and arguments and isinstance(values, list):
            for index, value in enumerate(values):
                yield from find_unknown_keys(arguments[0], value, join(path, name_of(index, value)))


def name_of(index: int, value: object) -> str:
    """How messages call an entry of a list: by its name where it has one."""
    named = isinstance(value, Mapping) and isinstance(value.get("name"), str)
    return str(value["name"]) if named else str(index)  # pyright: ignore[reportIndexIssue]


def suggest(key: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """What was probably meant by `key`, as the end of a message."""
    close = get_close_matches(key, list(known), n=1) or [one for one in known if key and one.startswith(key)]
    return f"; did you mean {close[0]}?" if close else f"; the keys are {', '.join(known)}"


def locate(path: str, message: str) -> str:
    """A message about something at `path`, or about a key below it that the message begins with."""
    return join(path, message) if OWN_KEY.match(message) else f"{path}: {message}"


def join(path: str, key: object) -> str:
    """The path of a key below `path`."""
    return f"{path}.{key}" if path else str(key)


def _alternatives(kind: Any) -> list[Any]:
    """The members of a union, each without its annotations."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [inner for one in get_args(kind) if one is not NoneType for inner in _alternatives(one)]
    return [kind]


def _key_of(location: Sequence[int | str], kind: str, values: object, path: str) -> str:
    """The path of pydantic's `location`, without its names for members of unions."""
    for part in location:
        if isinstance(values, Mapping) and (part in values or kind == "missing"):
            path, values = join(path, part), values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            path, values = join(path, name_of(part, values[part])), values[part]
    return path


def _line(key: str, entry: Mapping[str, Any]) -> str:
    kind, value, context = entry["type"], entry["input"], entry.get("ctx", {})
    limit = LIMITS[kind].format(**context) if kind in LIMITS else limit_of(kind, entry["msg"], context)
    if kind == "value_error" and isinstance(value, Mapping | BaseModel):
        # A section's own validator names the key, and what it got.
        return locate(key, limit)
    # A missing key's input is the section around it.
    return f"{key or 'the file'}: {limit}" + ("" if kind == "missing" else f", got {shorten(value)!r}")
