"""`LoadMeter`: seconds of denoising, by the step curve and by what steps lately took beside it."""

from dataclasses import dataclass
from typing import Self

from serve_app.config import ModelConfig
from serve_app.engine.running_work import hang_limit
from serve_app.requests.step_curve import Size, StepCurve
from serve_app.requests.work import Work, batched_seconds

WEIGHT = 0.1
"""Of the last step in the mean `slowdown`."""
LEAST_SLOWDOWN, MOST_SLOWDOWN = 0.25, 16.0
MOST_SHAPES = 1024


@dataclass(frozen=True)
class StepShape:
    """A step of `rows` UNet rows at latent size `size`. Its prompts have these numbers of `tokens`."""

    size: Size
    rows: int
    tokens: frozenset[int]


class LoadMeter:
    """Used by the denoise thread; other threads may read.

    Args:
        curve: the step curve.
        bucket: UNet rows of every forward, in deterministic mode.
        compiles: whether the executor compiles each new shape, which may take minutes.
        stall_seconds: what a step may take that compiles.
    """

    def __init__(self, curve: StepCurve, *, bucket: int | None, compiles: bool, stall_seconds: float) -> None:
        self._curve = curve
        self._bucket = bucket
        self._compiles = compiles
        self._stall_seconds = stall_seconds
        self._compiled: set[StepShape] = set()
        self.slowdown = 1.0

    @classmethod
    def configured(cls, curve: StepCurve, config: ModelConfig) -> Self:
        """As the model's config says."""
        engine = config.engine
        return cls(
            curve,
            bucket=engine.bucket_rows if engine.deterministic else None,
            compiles=config.executor == "compiled",
            stall_seconds=engine.stall_seconds,
        )

    def step_seconds(self, size: Size, rows: int) -> float:
        """What a step of `rows` UNet rows takes by the curve."""
        if self._bucket is None:
            return self._curve.seconds_of(size, rows)
        return -(-rows // self._bucket) * self._curve.seconds_of(size, self._bucket)

    def step_limit(self, step: StepShape) -> float:
        """Seconds after which such a step counts as hung."""
        limit_s = hang_limit(self.step_seconds(step.size, step.rows) * self.slowdown)
        return max(limit_s, self._stall_seconds) if self._is_new(step) else limit_s

    def note_step(self, step: StepShape, seconds: float) -> None:
        """A step was done in `seconds`."""
        if self._is_new(step):
            if len(self._compiled) >= MOST_SHAPES:
                self._compiled.clear()
            self._compiled.add(_compiled_for(step))
            return
        expected_s = max(self.step_seconds(step.size, step.rows), 1e-6)
        # Bounded before the mean: one step that had to wait is not yet a slow device.
        sample = min(MOST_SLOWDOWN, max(LEAST_SLOWDOWN, seconds / expected_s))
        self.slowdown += WEIGHT * (sample - self.slowdown)

    def work_s(self, work: Work) -> float:
        """Seconds of device time of these model calls, each with its rows' share of a full-width step."""
        return self.slowdown * batched_seconds(work, self._curve)

    def _is_new(self, step: StepShape) -> bool:
        return self._compiles and _compiled_for(step) not in self._compiled


def _compiled_for(step: StepShape) -> StepShape:
    """The step whose graph is used: a power of two of rows, and all prompts as long as the longest, or masked."""
    tokens = step.tokens if len(step.tokens) < 2 else frozenset((0, max(step.tokens)))
    return StepShape(step.size, 1 << (step.rows - 1).bit_length(), tokens)
