"""What every phase of a request carries: what was asked, by which table, who listens, and what comes after it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serve_app.diffusion.table import SamplerTable
from serve_app.engine.image_future import ImageFuture
from serve_app.models.model_family import Prompt
from serve_app.requests.events import Progress, ResumePoint, Timings
from serve_app.requests.request import CallerContext, GenerationRequest

OnProgress = Callable[[Progress], None]
OnResumePoint = Callable[[ResumePoint], None]


@dataclass(frozen=True)
class Callbacks:
    """What is to be told, and to whom: after each step, and with each checkpoint. Both are called in the engine."""

    context: CallerContext = field(default_factory=CallerContext)
    on_progress: OnProgress | None = None
    on_resume_point: OnResumePoint | None = None


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass of a request: what every phase carries.

    `guided` says whether steps may need the unconditional twin; `following` is the pass after this one, `earlier` what
    the passes before it took. `resume_from` is where to go on from, of an image that was begun elsewhere.
    """

    request: GenerationRequest
    table: SamplerTable
    guided: bool
    future: ImageFuture
    callbacks: Callbacks
    resume_from: ResumePoint | None = None
    following: "Pass | None" = None
    earlier: Timings = field(default_factory=Timings)
    calls_before: int = 0
    submitted: float = field(default_factory=time.monotonic)

    @property
    def prompts(self) -> list[Prompt]:
        """What must be encoded before the first step: the prompt, and the negative one where guided."""
        request = self.request
        weighted = request.sampling.prompt_syntax == "a1111"
        loras = tuple((lora.name, lora.weight) for lora in request.loras)
        prompt = Prompt(request.prompt, weighted=weighted, clip_skip=request.sampling.clip_skip, loras=loras)
        # As in diffusers, no layers are left out for the negative prompt.
        return (
            [prompt, Prompt(request.sampling.negative_prompt, True, weighted, loras=loras)] if self.guided else [prompt]
        )

    @property
    def pass_index(self) -> int:
        """0, and 1 in a second pass."""
        return int(self.calls_before > 0)

    @property
    def total_calls(self) -> int:
        """Model calls of this pass and those around it."""
        following = self.following.table.num_model_calls if self.following else 0
        return self.calls_before + self.table.num_model_calls + following

    def tell(self, progress: Progress) -> None:
        """Let whoever listens hear it."""
        if self.callbacks.on_progress is not None:
            self.callbacks.on_progress(progress)

    def progress(self, step_index: int) -> Progress:
        """How far the whole request is, after `step_index` of this pass's model calls."""
        done = self.calls_before + step_index
        taken_here = step_index - (self.resume_from.step_index if self.resume_from else 0)
        spent = time.monotonic() - self.submitted
        return Progress(done, self.total_calls, spent / max(taken_here, 1) * (self.total_calls - done))

    def previews_at(self, step_index: int) -> bool:
        """Whether the picture is to be shown after `step_index` of this pass's model calls: evenly spaced."""
        total, wanted, done = self.total_calls, self.callbacks.context.previews, self.calls_before + step_index
        return done < total and any(round(total * part / (wanted + 1)) == done for part in range(1, wanted + 1))
