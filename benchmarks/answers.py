"""What else the built-in model answers to: keywords, guidance, negative prompts, a picture it is given; and its VAE."""

import io
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from serve_app.builtin.training.captions import COLOURS
from serve_app.builtin.training.icons import Icon, compose
from serve_app.engine.engine import Engine
from serve_app.requests.capabilities import Limits
from serve_app.requests.params import GenerationParams, SamplingParams
from serve_app.requests.resolve import resolve

PAIRS = (("red apple", "red"), ("red heart", "red"), ("green apple", "green"), ("blue heart", "blue"))
"""Things with a colour, and that colour as a negative prompt."""

CHANNEL = {"red": 0, "green": 1, "blue": 2}


def draw_all(engine: Engine, all_params: Sequence[GenerationParams]) -> list[np.ndarray]:
    """All in one batch: (h, w, 3) uint8 each."""
    model = engine.capabilities.with_settings(SamplingParams(guidance_scale=3.0), Limits(), ai_mark=True)
    futures = [engine.submit(resolve(params, "emoji", model)[0]) for params in all_params]
    return [np.asarray(Image.open(io.BytesIO(future.result().content))) for future in futures]


def as_file(picture: np.ndarray) -> bytes:
    """A PNG of (h, w, 3) uint8."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def nearest_icon(picture: np.ndarray, colour: str, pixels: torch.Tensor) -> int:
    """The training icon that lies nearest over that background, by mean distance."""
    seen = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 127.5 - 1
    drawn = compose(pixels, torch.tensor([COLOURS[colour]], dtype=torch.uint8).expand(len(pixels), -1))
    return int((drawn - seen).abs().mean(dim=(1, 2, 3)).argmin())


def keyword_share(engine: Engine, icons: Sequence[Icon], pixels: torch.Tensor, count: int) -> float:
    """Asked by a keyword that two to ten icons have, on white: how often the nearest icon is one of those."""
    having: dict[str, set[int]] = {}
    for row, icon in enumerate(icons):
        for word in (*icon.keywords, *icon.name.split()):
            having.setdefault(word, set()).add(row)
    words = sorted(word for word, rows in having.items() if 2 <= len(rows) <= 10)
    chosen = random.Random(0).sample(words, min(count, len(words)))
    pictures = draw_all(
        engine,
        [GenerationParams(prompt=f"{word} on a white background", seed=seed) for seed, word in enumerate(chosen)],
    )
    hits = [
        nearest_icon(picture, "white", pixels) in having[word] for picture, word in zip(pictures, chosen, strict=True)
    ]
    return sum(hits) / len(hits)


def negative_effect(engine: Engine, seeds: int = 4) -> float:
    """How much less of its colour a thing has when that colour is the negative prompt: mean over 0..255 levels."""
    all_params = [
        GenerationParams(prompt=f"{thing} on a white background", negative_prompt=negative, seed=seed)
        for thing, colour in PAIRS
        for seed in range(seeds)
        for negative in ("", colour)
    ]
    pictures = draw_all(engine, all_params)
    channels = [CHANNEL[colour] for _, colour in PAIRS for _ in range(seeds)]
    differences = [
        excess(plain, channel) - excess(negated, channel)
        for plain, negated, channel in zip(pictures[::2], pictures[1::2], channels, strict=True)
    ]
    return float(np.mean(differences))


def excess(picture: np.ndarray, channel: int) -> float:
    """How far one channel stands out over the other two."""
    levels = picture.reshape(-1, 3).astype(float)
    return float((levels[:, channel] - np.delete(levels, channel, axis=1).max(axis=1)).clip(0).mean())


def kept_distance(
    engine: Engine, icons: Sequence[Icon], pixels: torch.Tensor, strength: float, count: int = 8
) -> float:
    """Mean distance (0..255) of image to image's results to the icons they were given, asked for by their names."""
    rows = random.Random(1).sample(range(len(icons)), count)
    white = torch.full((count, 3), 250, dtype=torch.uint8)
    given = ((compose(pixels[rows], white) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    all_params = [
        GenerationParams(prompt=icons[row].name, seed=seed, image=as_file(picture), strength=strength)
        for seed, (row, picture) in enumerate(zip(rows, given, strict=True))
    ]
    drawn = draw_all(engine, all_params)
    return float(np.mean([np.abs(one.astype(float) - other).mean() for one, other in zip(drawn, given, strict=True)]))


def picture_seconds(engine: Engine, repeats: int = 5) -> float:
    """Median seconds of a 25-step guided picture, drawn alone."""
    times: list[float] = []
    for seed in range(repeats):
        began = time.monotonic()
        engine.generate(GenerationParams(prompt="red apple on a blue background", num_inference_steps=25, seed=seed))
        times.append(time.monotonic() - began)
    return float(np.median(times))


def megabytes(folder: Path) -> float:
    """All of a model's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@torch.inference_mode()
def reconstruction_l1(engine: Engine, pixels: torch.Tensor) -> float:
    """The VAE on every whole training picture, each on one of the named backgrounds: mean L1 over -1..1."""
    autoencoder, total = engine.family.autoencoder, 0.0
    colours = torch.tensor(list(COLOURS.values()), dtype=torch.uint8)
    for row, icon in enumerate(pixels):
        picture = compose(icon[None], colours[row % len(colours)][None]).permute(0, 2, 3, 1)
        latents = autoencoder.encode(picture)[0].mean
        total += float((autoencoder.decode(latents[None]).float() / 127.5 - 1 - picture).abs().mean())
    return total / len(pixels)
