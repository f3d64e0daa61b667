"""What a long prompt costs its neighbours: one forward for all rows, padded to it, against two forwards.

    python benchmarks/prompts.py [--repeats 9]

`SHORT_PROMPT_TOKENS` in serve_app/engine/trajectory.py and the groups of rows follow from this table.
"""

import argparse
import statistics
import time

import torch

from serve_app.config import ModelConfig
from serve_app.models.load_family import load_family
from serve_app.models.model_family import Conditioning, DenoisingBatch, ModelFamily, Prompt

ROWS, CHUNKS = ((1, 1), (7, 1), (4, 4)), (2, 3, 4, 8)
"""Rows with a short prompt and rows with a long one; how many chunks the long one has."""


def encode(family: ModelFamily, chunks: int) -> Conditioning:
    """A prompt of so many chunks."""
    text = "red apple" + " BREAK red apple" * (chunks - 1)
    return family.encode([family.tokenize(Prompt(text=text, weighted=True))])[0]


def forward(family: ModelFamily, rows: list[Conditioning], side: int) -> None:
    """One call of the UNet, padded where the rows are unlike."""
    lengths = {one.num_tokens for one in rows}
    family.predict(
        DenoisingBatch(
            latents=torch.zeros(len(rows), family.autoencoder.latent_channels, side, side),
            timesteps=torch.full((len(rows),), 500.0),
            guidance_scale=torch.ones(len(rows)),
            conditioning=rows,
            padded_tokens=max(lengths) if len(lengths) > 1 else None,
        )
    )


def seconds_of(family: ModelFamily, side: int, *batches: list[Conditioning]) -> float:
    """One forward for each batch."""
    start = time.perf_counter()
    for rows in batches:
        forward(family, rows, side)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    family = load_family(ModelConfig(source="builtin:emoji", native_size=128))
    side = 128 // family.autoencoder.scale_factor
    print("| short rows | long rows | chunks of the long | padded, times all short | two forwards, times all short |")
    print("|---|---|---|---|---|")
    with torch.inference_mode():
        short = encode(family, 1)
        for few, many in ROWS:
            for chunks in CHUNKS:
                shorts, longs = [short] * few, [encode(family, chunks)] * many
                rounds = [
                    (
                        seconds_of(family, side, [short] * (few + many)),
                        seconds_of(family, side, shorts + longs),
                        seconds_of(family, side, shorts, longs),
                    )
                    for _ in range(options.repeats + 1)
                ]
                base, padded, apart = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
                print(f"| {few} | {many} | {chunks} | {padded / base:.2f} | {apart / base:.2f} |", flush=True)


if __name__ == "__main__":
    main()
