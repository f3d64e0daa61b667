"""Resumable training loops: one checkpoint file, seeded draws per step, a cosine learning rate, progress on the log."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

log = logging.getLogger("darkroom.training")


@dataclass(frozen=True)
class TrainingSchedule:
    """Steps and learning rate of one stage: warm-up to `learning_rate` over 100 steps, then cosine to 2% of it."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    checkpoint_every: int = 100

    def rate(self, step: int) -> float:
        """Learning rate at `step`."""
        decay = 0.51 + 0.49 * math.cos(math.pi * min(1.0, step / self.steps))
        return self.learning_rate * min(1.0, (step + 1) / 100) * decay


def train(
    modules: nn.ModuleDict,
    loss_at: Callable[[int, torch.Generator], torch.Tensor],
    schedule: TrainingSchedule,
    path: Path,
    ema: nn.ModuleDict | None = None,
) -> None:
    """Minimise `loss_at(step, generator)` over `modules`, resuming from `path` where it exists.

    The generator is seeded with the step number, so a resumed run makes the same draws as an uninterrupted one.
    `ema`, a copy of `modules`, follows them with decay 0.999 (less over the first steps).
    """
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=0.0, weight_decay=schedule.weight_decay, betas=(0.9, 0.99), fused=True
    )
    step = _resume(path, modules, optimizer, ema)
    running, since = 0.0, time.monotonic()
    while step < schedule.steps:
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = loss_at(step, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            _follow(ema, modules, min(0.999, (1 + step) / (10 + step)))
        running += loss.item()
        step += 1
        if step % schedule.checkpoint_every == 0 or step == schedule.steps:
            seconds = (time.monotonic() - since) / schedule.checkpoint_every
            log.info(
                "%s step %d loss %.4f, %.2f s a step", path.stem, step, running / schedule.checkpoint_every, seconds
            )
            running, since = 0.0, time.monotonic()
            _save(path, step, modules, optimizer, ema)


def _follow(ema: nn.ModuleDict, modules: nn.ModuleDict, decay: float) -> None:
    with torch.no_grad():
        averaged, current = ([weight.data for weight in part.parameters()] for part in (ema, modules))
        torch._foreach_lerp_(averaged, current, 1 - decay)


def _save(
    path: Path, step: int, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, ema: nn.ModuleDict | None
) -> None:
    state = {"step": step, "modules": modules.state_dict(), "optimizer": optimizer.state_dict()}
    if ema is not None:
        state["ema"] = ema.state_dict()
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _resume(path: Path, modules: nn.ModuleDict, optimizer: torch.optim.Optimizer, ema: nn.ModuleDict | None) -> int:
    """The step to resume from: 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    modules.load_state_dict(state["modules"])
    optimizer.load_state_dict(state["optimizer"])
    if ema is not None:
        ema.load_state_dict(state["ema"])
    log.info("%s resumes from step %d", path.stem, state["step"])
    return int(state["step"])
