"""What the commands print: answers on standard output, mistakes on standard error."""

from rich.console import Console
from rich.text import Text


def print_answer(text: str) -> None:
    """One line on standard output."""
    Console(highlight=False, soft_wrap=True).print(Text(text))


def print_mistakes(source: object, lines: str) -> None:
    """Each of `lines` on standard error, behind the name of its source. On a terminal, the key is coloured."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines.splitlines():
        key, colon, text = line.partition(": ")
        known = colon and " " not in key
        styled = Text.assemble((key, "cyan"), colon, text) if known else Text(line)
        console.print(Text.assemble((f"{source}: ", "bold"), styled))
