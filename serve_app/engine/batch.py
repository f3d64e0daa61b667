"""The kernel: assemble unlike rows into one forward, guide them, advance each by its own table."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from serve_app.diffusion.guidance import guide
from serve_app.diffusion.table import advance
from serve_app.engine.trajectory import STATE_SLOTS, Trajectory
from serve_app.models.family import DenoisingBatch, ModelFamily


def step(family: ModelFamily, rows: Sequence[Trajectory], bucket: int | None) -> None:
    """One model call for every row, all of one size; moves each row's `state` and `step_index`.

    Nothing is changed where the forward raises. With `bucket`, every forward has exactly that many rows.
    """
    batch, guided, scales = assemble(rows, family.device)
    output = predict_in_buckets(family, batch, bucket) if bucket else family.predict(batch)
    update(rows, guide(output, guided, scales), family.device)


def assemble(rows: Sequence[Trajectory], device: torch.device) -> tuple[DenoisingBatch, torch.Tensor, torch.Tensor]:
    """The forward's rows: every conditional row, then an unconditional twin for each guided one.

    Returns:
        The batch, the row of each twin (int64), and each twin's guidance scale (float32).
    """
    twins = [(index, row.unconditional) for index, row in enumerate(rows) if row.unconditional is not None]
    order = list(range(len(rows))) + [index for index, _ in twins]
    latents = torch.stack([row.state[0] for row in rows])
    scale = torch.stack([row.input_scale[row.step_index] for row in rows]).to(device, non_blocking=True)
    timesteps = torch.stack([row.table.timesteps[row.step_index] for row in rows])
    guided = torch.tensor([index for index, _ in twins], dtype=torch.int64)
    scales = torch.tensor([rows[index].ticket.request.guidance_scale for index, _ in twins])
    scaled = latents * scale.view(-1, 1, 1, 1)
    batch = DenoisingBatch(
        latents=scaled[torch.tensor(order).to(device, non_blocking=True)] if twins else scaled,
        timesteps=timesteps[order].to(device, non_blocking=True),
        conditioning=[row.conditioning for row in rows] + [unconditional for _, unconditional in twins],
    )
    return batch, guided.to(device, non_blocking=True), scales.to(device, non_blocking=True)


def predict_in_buckets(family: ModelFamily, batch: DenoisingBatch, bucket: int) -> torch.Tensor:
    """Forward `bucket` rows at a time, the last bucket filled up with copies of its first row."""
    outputs = []
    for start in range(0, len(batch.latents), bucket):
        rows = list(range(start, min(start + bucket, len(batch.latents))))
        padded = rows + [start] * (bucket - len(rows))
        part = DenoisingBatch(
            batch.latents[padded], batch.timesteps[padded], [batch.conditioning[row] for row in padded]
        )
        outputs.append(family.predict(part)[: len(rows)])
    return torch.cat(outputs)


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
    for row, after in zip(rows, moved, strict=True):
        row.state = after[: row.table.num_slots]
        row.step_index += 1


def _pad_slots(state: torch.Tensor, slots: int) -> torch.Tensor:
    """(k, c, h, w) to (slots, c, h, w)."""
    return F.pad(state, (0, 0, 0, 0, 0, 0, 0, slots - len(state)))
