"""Presets' templates filled in. A variable may stand there twice, so the text is measured before it is built."""

from collections.abc import Mapping
from string import Formatter

from serve_app.errors import InvalidRequest


def fill_template(template: str, values: Mapping[str, str], max_characters: int, field: str) -> str:
    """The template with a text for each of its variables.

    Raises:
        InvalidRequest: names `field`. The text would be longer than `max_characters`.
    """
    pieces = Formatter().parse(template)
    length = sum(len(text) + len(values[name] if name else "") for text, name, _, _ in pieces)
    check_growth(length, max_characters, field)
    return template.format(**values)


def check_growth(length: int, max_characters: int, field: str) -> None:
    """Refuse a prompt that a preset makes longer than the limit. Raises InvalidRequest, which names `field`."""
    if length > max_characters:
        raise InvalidRequest(field, f"{length} characters", f"must give prompts of at most {max_characters} characters")
