"""Measuring at warm-up how many seconds a step takes by its UNet rows."""

import time
from collections.abc import Callable

import torch

from serve_app.config import ModelConfig
from serve_app.models.model_family import DenoisingBatch, ModelFamily, Prompt
from serve_app.requests.step_curve import StepCurve

MOST_ROWS, FEW_ROWS = 32, 4
"""How wide to measure: to find the best width, or only to learn what a step costs."""


def measure_curve(family: ModelFamily, config: ModelConfig) -> StepCurve:
    """Time the UNet at the model's native size over growing batches; over few where the config has the cap."""
    side = config.native_size // family.autoencoder.scale_factor
    channels = family.autoencoder.latent_channels + family.mask_channels
    engine = config.engine
    max_rows = engine.max_rows or (engine.bucket_rows if engine.deterministic else None)

    def forward(rows: int) -> None:
        batch = DenoisingBatch(
            latents=torch.zeros(rows, channels, side, side, device=family.device),
            timesteps=torch.full((rows,), 500.0, device=family.device),
            guidance_scale=torch.ones(rows, device=family.device),
            conditioning=[conditioning] * rows,
        )
        try:
            family.predict(batch).sum().item()
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{rows} UNet rows at {config.native_size} pixels: {error}") from error

    with torch.inference_mode():
        conditioning = family.encode([family.tokenize(Prompt(text="warm-up"))])[0]
        seconds = time_doublings(forward, FEW_ROWS if max_rows else MOST_ROWS)
    return StepCurve(size=(side, side), seconds=seconds, max_rows=max_rows)


def time_doublings(forward: Callable[[int], None], most: int = MOST_ROWS, patience: int = 2) -> dict[int, float]:
    """Seconds of `forward(rows)` for 1, 2, 4 .. `most` rows; stops once `patience` doublings in a row gain nothing.

    Args:
        forward: returns when the work is done, not when it is queued; raises MemoryError for too many rows.
        most: the most rows to try.
        patience: doublings that may gain less than 3% in rows per second.

    Raises:
        MemoryError: one row is too many.
    """
    seconds: dict[int, float] = {}
    rows, best, fruitless = 1, 0.0, 0
    while rows <= most and fruitless < patience:
        try:
            forward(rows)
        except MemoryError:
            if rows == 1:
                raise
            break
        seconds[rows] = min(_timed(forward, rows) for _ in range(2))
        rate = rows / seconds[rows]
        fruitless = 0 if rate > 1.03 * best else fruitless + 1
        best = max(best, rate)
        rows *= 2
    return seconds


def _timed(forward: Callable[[int], None], rows: int) -> float:
    start = time.perf_counter()
    forward(rows)
    return time.perf_counter() - start
