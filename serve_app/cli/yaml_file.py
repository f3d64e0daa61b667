"""A YAML file as Python values."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigError


def read_yaml(path: Path) -> Any:
    """The values in a file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or gives a key twice. It has a line for each mistake.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        twice = list(_find_repeated_keys(node, set()))
        if twice:
            raise ConfigError("\n".join(twice))
        return loader.construct_document(node)
    except FileNotFoundError as error:
        raise ConfigError("does not exist") from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"must be UTF-8, byte {error.start} is not") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{place}must be YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"must be YAML: {' '.join(str(error).split())}") from error


def _find_repeated_keys(node: yaml.Node, seen: set[int]) -> Iterator[str]:
    """A line for each key that its mapping has twice. YAML would let the second value win, and say nothing."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _find_repeated_keys(entry, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                yield f"line {line}: {key.value} is given twice, first in line {lines[key.value]}"
            yield from _find_repeated_keys(value, seen)
