"""A family and a scheduler that tell where an engine's time goes."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from serve_app.engine.scheduler import DeadlineOrder, StepPlan
from serve_app.engine.trajectory import Trajectory
from serve_app.models.model_family import Conditioning, DenoisingBatch, ModelFamily, TokenizedPrompt


class TimedFamily:
    """A family that adds up the seconds of its calls by their name."""

    def __init__(self, family: ModelFamily) -> None:
        self._family = family
        self.seconds: dict[str, float] = defaultdict(float)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def encode(self, prompts: Sequence[TokenizedPrompt]) -> list[Conditioning]:
        """Timed."""
        return self._timed("encode", lambda: self._family.encode(prompts))

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        """Timed."""
        return self._timed("predict", lambda: self._family.predict(batch))

    def _timed(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        if self._family.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start
        return result


class TimedOrder(DeadlineOrder[Trajectory]):
    """Deadline order that adds up the seconds from each plan to the next, while there is something to do."""

    busy = 0.0
    _planned: float | None = None

    def plan(self) -> StepPlan[Trajectory] | None:
        """Timed."""
        now = time.perf_counter()
        if self._planned is not None:
            self.busy += now - self._planned
        plan = super().plan()
        self._planned = now if plan is not None else None
        return plan
