"""What the built-in model can do, measured: is the background the asked one, is the icon the asked one?

Asks for pairs of name and background that training never showed together. The background is the named colour nearest to
the picture's border; the icon is the training icon nearest to the picture, over the same background, pixel by pixel.

    python benchmarks/quality.py --cache DIR [--prompts 300] [--steps 25] [--samplers euler,ddim,dpmpp_2m]

DIR holds the source icons, as the training's `--cache` does; they are fetched with npm where they are missing.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from answers import (
    draw_all,
    kept_distance,
    keyword_share,
    megabytes,
    negative_effect,
    picture_seconds,
    reconstruction_l1,
)

from serve_app.builtin import BUILTIN_MODELS
from serve_app.builtin.training.captions import COLOUR_NAMES, COLOURS, held_out, on_background
from serve_app.builtin.training.icons import Icon, compose, fetch_packages, load_icons, render_all
from serve_app.config import ModelConfig
from serve_app.engine.engine import Engine
from serve_app.requests.params import GenerationParams

BORDER = 5


@dataclass(frozen=True)
class Score:
    """Shares of the prompts, 0..1."""

    background: float
    nearest: float
    nearest_five: float


def held_out_pairs(icons: Sequence[Icon], count: int) -> list[tuple[int, str]]:
    """`count` pairs of icon and colour that training never saw, the same every time."""
    pairs = [(row, colour) for row, icon in enumerate(icons) for colour in COLOUR_NAMES if held_out(icon.name, colour)]
    return random.Random(0).sample(pairs, count)


def draw(engine: Engine, prompts: Sequence[str], sampler: str, schedule: str, steps: int) -> list[np.ndarray]:
    """Every prompt's picture, (h, w, 3) uint8; prompt i has seed i."""
    all_params = [
        GenerationParams(prompt=prompt, sampler=sampler, scheduler=schedule, num_inference_steps=steps, seed=seed)
        for seed, prompt in enumerate(prompts)
    ]
    return draw_all(engine, all_params)


def background_of(picture: np.ndarray) -> str:
    """The named colour nearest to the median of the picture's border."""
    ring = np.ones(picture.shape[:2], bool)
    ring[BORDER:-BORDER, BORDER:-BORDER] = False
    median = np.median(picture[ring], axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(median - np.array(COLOURS[name])).sum()))


def rank_of(picture: np.ndarray, asked: int, colour: str, pixels: torch.Tensor) -> int:
    """How many training icons, over that colour, are nearer to the picture than the asked one."""
    seen = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 127.5 - 1
    drawn = compose(pixels, torch.tensor([COLOURS[colour]], dtype=torch.uint8).expand(len(pixels), -1))
    distance = (drawn - seen).abs().mean(dim=(1, 2, 3))
    return int((distance < distance[asked]).sum())


def score(pictures: Sequence[np.ndarray], pairs: Sequence[tuple[int, str]], pixels: torch.Tensor) -> Score:
    """Compare each picture with what was asked."""
    right = [background_of(picture) == colour for picture, (_, colour) in zip(pictures, pairs, strict=True)]
    ranks = [rank_of(picture, row, colour, pixels) for picture, (row, colour) in zip(pictures, pairs, strict=True)]
    return Score(
        sum(right) / len(right), sum(r == 0 for r in ranks) / len(ranks), sum(r < 5 for r in ranks) / len(ranks)
    )


def print_answers(
    engine: Engine, icons: Sequence[Icon], pixels: torch.Tensor, pairs: Sequence[tuple[int, str]], seconds: float
) -> None:
    """The second table: everything but the samplers. `seconds` is what a picture takes alone."""
    prompts = [on_background(icons[row].name, colour) for row, colour in pairs]
    unguided = [GenerationParams(prompt=prompt, guidance_scale=1.0, seed=seed) for seed, prompt in enumerate(prompts)]
    rows = [
        ("VAE on whole training pictures, L1 over -1..1", f"{reconstruction_l1(engine, pixels):.3f}"),
        ("keyword of 2 to 10 icons: nearest icon has it", f"{keyword_share(engine, icons, pixels, len(pairs)):.0%}"),
        ("nearest icon without guidance", f"{score(draw_all(engine, unguided), pairs, pixels).nearest:.0%}"),
        ("a thing's colour as its negative prompt: levels less of it", f"{negative_effect(engine):.0f}"),
        ("image to image, strength 0.2: levels from the given", f"{kept_distance(engine, icons, pixels, 0.2):.1f}"),
        ("image to image, strength 0.8: levels from the given", f"{kept_distance(engine, icons, pixels, 0.8):.1f}"),
    ]
    rows += [
        (f"a 25-step picture alone, torch on {torch.get_num_threads()} threads, seconds", f"{seconds:.2f}"),
        ("the whole model's files, MB", f"{megabytes(BUILTIN_MODELS['emoji']):.0f}"),
    ]
    print("\n| what | measured |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--answers", action="store_true", help="keywords, guidance, negatives, image to image, VAE too")
    parser.add_argument("--samplers", default="euler,ddim,dpmpp_2m,dpmpp_2m:karras")
    options = parser.parse_args()
    fetch_packages(options.cache)
    icons = load_icons(options.cache)
    pixels = render_all(icons, options.cache)
    pairs = held_out_pairs(icons, options.prompts)
    prompts = [on_background(icons[row].name, colour) for row, colour in pairs]
    config = ModelConfig(source="builtin:emoji", native_size=128)
    print(f"{len(pairs)} pairs of name and background never shown in training, {options.steps} steps, guidance 3\n")
    print("| sampler | background right | nearest icon | in nearest five |")
    print("|---|---|---|---|")
    with Engine.load(config) as engine:
        # First of all: once this thread has used torch's pool too, the engine's steps are slower.
        seconds = picture_seconds(engine) if options.answers else 0.0
        for name in options.samplers.split(","):
            sampler, _, schedule = name.partition(":")
            found = score(draw(engine, prompts, sampler, schedule or "automatic", options.steps), pairs, pixels)
            cells = f"{found.background:.0%} | {found.nearest:.0%} | {found.nearest_five:.0%}"
            print(f"| {sampler} {schedule} | {cells} |", flush=True)
        if options.answers:
            print_answers(engine, icons, pixels, pairs, seconds)


if __name__ == "__main__":
    main()
