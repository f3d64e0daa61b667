"""The training icons: which ones, their names and keywords, and their pixels.

Source packages (both MIT): `@iconify-json/fluent-emoji-flat` (Microsoft's Fluent emoji, SVG) and `emojilib` (keywords).
"""

import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ICON_PACKAGE = "@iconify-json/fluent-emoji-flat@1.2.6"
KEYWORD_PACKAGE = "emojilib@4.0.3"

SUBJECTS = Path(__file__).parent / "subjects.txt"
"""The names of the training icons: the most likely prompts, without look-alikes."""


@dataclass(frozen=True)
class Icon:
    """One training icon: `name` is its caption, `keywords` its paraphrases, `svg` its drawing commands."""

    name: str
    keywords: tuple[str, ...]
    svg: str


def fetch_packages(cache: Path) -> None:
    """Download both source packages into `cache` with npm, unless they are there."""
    cache.mkdir(parents=True, exist_ok=True)
    for package, folder in ((ICON_PACKAGE, "icons"), (KEYWORD_PACKAGE, "keywords")):
        if (cache / folder).exists():
            continue
        command = ["npm", "pack", "--silent", package]
        run = subprocess.run(command, cwd=cache, check=True, capture_output=True, text=True)  # noqa: S603  # constants
        archive = run.stdout.split()[-1]
        with tarfile.open(cache / archive) as tar:
            tar.extractall(cache / folder, filter="data")


def load_icons(cache: Path) -> list[Icon]:
    """Every training icon, ordered by name."""
    package = cache / "icons" / "package"
    bodies = json.loads((package / "icons.json").read_text())["icons"]
    keywords = _keywords(cache)
    names = sorted(name.strip() for name in SUBJECTS.read_text().replace("\n", " ").split(","))
    slugs = [name.replace(" ", "-") for name in names]
    return [Icon(name, keywords.get(slug, ()), bodies[slug]["body"]) for name, slug in zip(names, slugs, strict=True)]


def _keywords(cache: Path) -> dict[str, tuple[str, ...]]:
    """Icon slug to its emojilib keywords, joined over the emoji's code points."""
    words_of = json.loads((cache / "keywords" / "package" / "dist" / "emoji-en-US.json").read_text())
    slug_of = json.loads((cache / "icons" / "package" / "chars.json").read_text())
    words_by_code = {_code_points(emoji): words for emoji, words in words_of.items()}
    found: dict[str, tuple[str, ...]] = {}
    for code, slug in slug_of.items():
        words = [word.replace("_", " ").lower() for word in words_by_code.get(code.replace("-fe0f", ""), [])]
        good = tuple(dict.fromkeys(word for word in words if re.fullmatch(r"[a-z][a-z0-9 ]*", word)))
        if good:
            found[slug] = good
    return found


def _code_points(emoji: str) -> str:
    return "-".join(f"{ord(char):x}" for char in emoji if ord(char) != 0xFE0F)


def render(icon: Icon, size: int) -> torch.Tensor:
    """The icon as (4, size, size) uint8, RGB with straight alpha."""
    import resvg_py

    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 36 36">{icon.svg}</svg>'
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def render_all(icons: list[Icon], cache: Path, size: int = 128) -> torch.Tensor:
    """Every icon as (len(icons), 4, size, size) uint8, cached on disk."""
    path = cache / f"pixels-{len(icons)}-{size}.pt"
    if not path.exists():
        torch.save(torch.stack([render(icon, size) for icon in icons]), path)
    return torch.load(path)


def compose(icons: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Lay `icons` (n, 4, h, w) uint8 over `colours` (n, 3) in 0..255: (n, 3, h, w) float in -1..1."""
    alpha = icons[:, 3:].float() / 255
    mixed = icons[:, :3].float() * alpha + colours[:, :, None, None].float() * (1 - alpha)
    return mixed / 127.5 - 1
