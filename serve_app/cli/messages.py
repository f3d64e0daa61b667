"""What the commands print: answers on standard output, everything else on standard error."""

from typing import TextIO

from rich.console import Console
from rich.text import Text


def print_answer(text: str, file: TextIO | None = None) -> None:
    """One line on `file`, by default standard output."""
    Console(file=file, highlight=False, soft_wrap=True).print(Text(text))


def print_note(text: str) -> None:
    """One line on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, "dim"))


def print_mistakes(source: object, lines: str) -> None:
    """Each of `lines` on standard error, behind the name of its source. On a terminal, the key is coloured."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines.splitlines():
        key, colon, text = line.partition(": ")
        known = colon and " " not in key
        styled = Text.assemble((key, "cyan"), colon, text) if known else Text(line)
        console.print(Text.assemble((f"{source}: ", "bold"), styled))


class StartStatus:
    """A line on a terminal that says what the command waits for. Elsewhere nothing is shown."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._status = console.status("") if console.is_terminal else None

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._status is not None:
            self._status.update(Text(text))
            self._status.start()

    def clear(self) -> None:
        """Remove the line."""
        if self._status is not None:
            self._status.stop()
