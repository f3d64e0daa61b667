"""Captions of the training images, and the pairs of name and background that training never sees."""

import random
import zlib

from serve_app.builtin.training.icons import Icon

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 38, 38),
    "orange": (251, 146, 30),
    "yellow": (253, 224, 71),
    "green": (34, 160, 80),
    "blue": (37, 99, 235),
    "purple": (130, 50, 200),
    "pink": (249, 150, 200),
    "brown": (120, 72, 40),
    "black": (12, 12, 12),
    "white": (250, 250, 250),
    "grey": (130, 135, 140),
    "cyan": (60, 210, 230),
}
COLOUR_NAMES = tuple(COLOURS)


def held_out(name: str, colour: str) -> bool:
    """Whether this pair is kept for evaluation: one pair in eight, by hash."""
    return zlib.crc32(f"{name}|{colour}".encode()) % 8 == 0


def training_pairs(icons: list[Icon]) -> list[tuple[int, int]]:
    """(icon index, colour index) of every pair that training may see."""
    return [
        (row, column)
        for row, icon in enumerate(icons)
        for column, colour in enumerate(COLOUR_NAMES)
        if not held_out(icon.name, colour)
    ]


def on_background(subject: str, colour: str) -> str:
    """`red apple on a blue background`: the form that training and evaluation use."""
    article = "an" if colour == "orange" else "a"
    return f"{subject} on {article} {colour} background"


def draw_caption(icon: Icon, colour: str, dice: random.Random) -> str:
    """One caption for the icon on that background; a tenth are empty, for classifier-free guidance."""
    if dice.random() < 0.1:
        return ""
    subject = icon.name
    if icon.keywords and dice.random() < 0.2:
        subject = ", ".join(dice.sample(icon.keywords, min(len(icon.keywords), dice.randint(1, 3))))
    elif dice.random() < 0.25:
        subject = ("an " if subject[0] in "aeiou" else "a ") + subject
    form = dice.random()
    if form < 0.3:
        return subject
    if form < 0.4:
        return f"{subject}, {colour} background"
    return on_background(subject, colour)
