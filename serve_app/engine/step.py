"""One denoising step: assemble unlike rows into one forward, guide them, advance each by its own table."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from serve_app.diffusion.guidance import guide
from serve_app.diffusion.table import STATE_SLOTS, advance
from serve_app.engine.load_meter import StepShape
from serve_app.engine.trajectory import Trajectory
from serve_app.models.model_family import DenoisingBatch, ModelFamily


@dataclass(frozen=True, kw_only=True)
class UncondRows:
    """The unconditional rows of a batch: the row each belongs to (int64), its scale and its rescale (float32).

    `rescale` is None where no row is rescaled.
    """

    guided: torch.Tensor
    scale: torch.Tensor
    rescale: torch.Tensor | None


def step(family: ModelFamily, rows: Sequence[Trajectory], bucket: int | None) -> None:
    """One model call for all rows, all of one group; advances each row's `state` and `step_index`.

    If this raises, no row has changed. With `bucket`, every forward has exactly that many rows.
    """
    batch, uncond = assemble(rows, family.device)
    output = predict_in_buckets(family, batch, bucket) if bucket else family.predict(batch)
    update(rows, guide(output, uncond.guided, uncond.scale, uncond.rescale), family.device)


def assemble(rows: Sequence[Trajectory], device: torch.device) -> tuple[DenoisingBatch, UncondRows]:
    """The forward's rows: a conditional row each, then an unconditional row for each that is guided in this step."""
    negatives = [(index, negative) for index, row in enumerate(rows) if (negative := row.unconditional) is not None]
    order = list(range(len(rows))) + [index for index, _ in negatives]
    latents = torch.stack([row.state[0] for row in rows])
    scale = torch.stack([row.input_scale[row.step_index] for row in rows]).to(device, non_blocking=True)
    timesteps = torch.stack([row.table.timesteps[row.step_index] for row in rows])
    sampling = [row.pass_.request.sampling for row in rows]
    scales = torch.tensor([one.guidance_scale for one in sampling])
    guided = torch.tensor([index for index, _ in negatives], dtype=torch.int64)
    inputs = latents * scale.view(-1, 1, 1, 1)
    seen = [row.mask_channels for row in rows if row.mask_channels is not None]
    if seen:
        inputs = torch.cat([inputs, torch.stack(seen)], dim=1)
    conditioning = [row.conditioning for row in rows] + [negative for _, negative in negatives]
    lengths = {one.num_tokens for one in conditioning}
    batch = DenoisingBatch(
        latents=inputs[torch.tensor(order).to(device, non_blocking=True)] if negatives else inputs,
        timesteps=timesteps[order].to(device, non_blocking=True),
        guidance_scale=scales[order].to(device, non_blocking=True),
        conditioning=conditioning,
        padded_tokens=max(lengths) if len(lengths) > 1 else None,
    )
    rescales = torch.tensor([sampling[index].guidance_rescale for index, _ in negatives])
    return batch, UncondRows(
        guided=guided.to(device, non_blocking=True),
        scale=scales[guided].to(device, non_blocking=True),
        rescale=rescales.to(device, non_blocking=True) if rescales.any() else None,
    )


def shape_of(rows: Sequence[Trajectory]) -> StepShape:
    """The shape of a step of these rows, which have one size."""
    prompts = [prompt for row in rows for prompt in (row.conditioning, row.unconditional) if prompt is not None]
    return StepShape(rows[0].size, len(prompts), frozenset(prompt.num_tokens for prompt in prompts))


def predict_in_buckets(family: ModelFamily, batch: DenoisingBatch, bucket: int) -> torch.Tensor:
    """Forward `bucket` rows at a time, the last bucket padded with copies of its first row."""
    outputs = []
    for start in range(0, len(batch.latents), bucket):
        rows = list(range(start, min(start + bucket, len(batch.latents))))
        outputs.append(family.predict(take_rows(batch, rows + [start] * (bucket - len(rows))))[: len(rows)])
    return torch.cat(outputs)


def take_rows(batch: DenoisingBatch, rows: Sequence[int]) -> DenoisingBatch:
    """The batch made of these rows."""
    chosen = list(rows)
    return DenoisingBatch(
        latents=batch.latents[chosen],
        timesteps=batch.timesteps[chosen],
        guidance_scale=batch.guidance_scale[chosen],
        conditioning=[batch.conditioning[row] for row in chosen],
        padded_tokens=batch.padded_tokens,
    )


def update(rows: Sequence[Trajectory], model_output: torch.Tensor, device: torch.device) -> None:
    """Advance every row's state by its table's current step, all in one product."""
    state = torch.stack([_pad_slots(row.state, STATE_SLOTS) for row in rows])
    matrices = torch.stack([row.matrices[row.step_index] for row in rows])
    draws = [row.draw_noise() for row in rows]
    noise = torch.zeros(model_output.shape)
    for index, draw in enumerate(draws):
        if draw is not None:
            noise[index] = draw
    moved = advance(state, matrices.to(device, non_blocking=True), model_output, noise.to(device, non_blocking=True))
    states = [row.next_state(after, output) for row, after, output in zip(rows, moved, model_output, strict=True)]
    for row, after in zip(rows, states, strict=True):
        row.advance_to(after)


def _pad_slots(state: torch.Tensor, slots: int) -> torch.Tensor:
    """(k, c, h, w) to (slots, c, h, w)."""
    return F.pad(state, (0, 0, 0, 0, 0, 0, 0, slots - len(state)))
