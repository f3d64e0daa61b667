"""The denoise thread. Once per step: take new passes, drop settled ones, encode prompts, plan, step, report."""

import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from serve_app.config import EngineConfig
from serve_app.engine.engine_state import EngineState
from serve_app.engine.init_latents import initial_state
from serve_app.engine.load_meter import StepShape
from serve_app.engine.passes import Pass
from serve_app.engine.prompt_cache import PromptCache
from serve_app.engine.running_work import MIN_LIMIT_SECONDS
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.step import shape_of, step
from serve_app.engine.step_reports import StepReports
from serve_app.engine.trajectory import Trajectory
from serve_app.errors import Draining
from serve_app.models.cpu_threads import claim_cores
from serve_app.models.model_family import Conditioning, ModelFamily, Prompt
from serve_app.requests.events import StepTime

MAX_PASSES_ENCODED_AT_ONCE = 8
"""So that the images in the batch do not wait long for many new ones."""

IDLE_BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class _DoneStep:
    """A step that was done: `shares` are the UNet rows that each of `rows` had in it."""

    rows: Sequence[Trajectory]
    shares: Sequence[int]
    shape: StepShape
    began: float
    seconds: float


class DenoiseLoop:
    """Takes passes from `inbox`; puts finished trajectories and previews into `jobs`, for the VAE worker.

    A pass or trajectory whose future is settled, by a failure or a cancellation, leaves before the next step.
    Everything but the futures and `state` belongs to this thread alone.

    Args:
        family: the checkpoint.
        config: bucket size and resume interval are read.
        scheduler: picks the rows of each step.
        prompt_cache: encodes prompts.
        cores: CPU cores for torch.
        state: what it shares with the engine.
    """

    def __init__(
        self,
        *,
        family: ModelFamily,
        config: EngineConfig,
        scheduler: Scheduler[Trajectory],
        prompt_cache: PromptCache,
        cores: int,
        state: EngineState,
    ) -> None:
        self._family = family
        self._bucket = config.bucket_rows if config.deterministic else None
        self._scheduler = scheduler
        self._row_caps = state.row_caps
        self._prompt_cache = prompt_cache
        self._cores = cores
        self._inbox, self._jobs, self._open = state.inbox, state.jobs, state.open_images
        self._guard, self._running = state.guard, state.running
        self._counters, self._meter, self._device_time = state.counters, state.meter, state.device_time
        self._reports = StepReports(state.jobs, config.resume_interval_s)
        self._pending: list[Pass] = []
        self._begun: list[Trajectory] = []
        self._done: list[_DoneStep] = []
        self._trajectories: dict[Trajectory, None] = {}
        self._stopping = False

    def run(self) -> None:
        """Denoise until the inbox has given None and no image is left, or until the engine has ended."""
        claim_cores(self._family.device, self._cores)
        with torch.inference_mode():
            while not self._open.has_ended and not (self._stopping and not self._pending and not self._trajectories):
                self._run_once()

    def _run_once(self) -> None:
        self._empty_inbox()
        if self._open.is_handing_over:
            self._hand_over()
        self._drop_settled()
        if self._pending:
            self._encode_first()
        plan = self._scheduler.plan()
        if plan is not None:
            self._take_step(plan.rows)
        elif self._trajectories:
            raise RuntimeError("the scheduler plans no step although images are in flight")

    def _empty_inbox(self) -> None:
        """Take all that is there; if there is nothing else to do, wait for it up to a second."""
        idle = not self._pending and not self._trajectories
        try:
            taken = self._inbox.get(timeout=IDLE_BEAT_SECONDS) if idle else self._inbox.get_nowait()
            while True:
                if taken is None:
                    self._stopping = True
                else:
                    self._pending.append(taken)
                taken = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _hand_over(self) -> None:
        """Tell each trajectory's resume point, then settle it. What has not begun has no point to tell."""
        handed_over = Draining("the image goes on in another engine")
        for row in self._trajectories:
            if not row.future.done():
                with self._running.during(MIN_LIMIT_SECONDS):
                    self._guard.run("telling a resume point", self._reports.tell_resume_points, [row])
                row.fail(handed_over)
        for pass_ in self._pending:
            pass_.fail(handed_over)

    def _drop_settled(self) -> None:
        """Free the rows of images that failed, or whose caller has gone."""
        rows = [row for row in self._trajectories if row.future.done()]
        for row in rows:
            self._leave(row)
        settled = [pass_ for pass_ in self._pending if pass_.future.done()]
        self._pending = [pass_ for pass_ in self._pending if pass_ not in settled]
        self._counters.cancelled += sum(one.future.cancelled() for one in (*rows, *settled))

    def _encode_first(self) -> None:
        """Turn the first passes that wait into trajectories."""
        first = self._pending[:MAX_PASSES_ENCODED_AT_ONCE]
        with self._running.during_kind("encoding prompts", sum(len(one.prompts) for one in first)):
            self._guard.run("encoding the prompt", self._encode, first)
        self._pending = self._pending[len(first) :]
        for row in self._begun:
            self._trajectories[row] = None
            self._scheduler.add(row)
        self._begun.clear()
        self._count_rows()

    def _encode(self, passes: Sequence[Pass]) -> None:
        """Encode the prompts of all passes together."""
        began = time.monotonic()
        encoded = self._prompt_cache.encode([prompt for pass_ in passes for prompt in pass_.prompts])
        seconds = time.monotonic() - began
        self._counters.prompts_known = self._prompt_cache.known
        self._counters.prompts_encoded = self._prompt_cache.encoded
        self._begun += [self._begin(pass_, encoded, seconds) for pass_ in passes]

    def _begin(self, pass_: Pass, encoded: Mapping[Prompt, Conditioning], encode_seconds: float) -> Trajectory:
        request, autoencoder = pass_.request, self._family.autoencoder
        factor = autoencoder.scale_factor
        shape = (autoencoder.latent_channels, request.height // factor, request.width // factor)
        initial = initial_state(request, pass_.table, pass_.source, shape, self._family.device)
        conditioning = [encoded[one.prompt] for one in pass_.prompts]
        return Trajectory(pass_, conditioning, initial, encode_seconds, deterministic=self._bucket is not None)

    def _take_step(self, rows: Sequence[Trajectory]) -> None:
        """One step for `rows`; then tell their callers, and pass the finished to the VAE worker."""
        with self._running.during(self._meter.step_limit(shape_of(rows))):
            self._guard.run("denoising", self._step, rows, self._lower_cap)
            # What follows is outside of the guard: a step that was done must not be tried again.
            for done in self._done:
                self._note(done)
                for row in done.rows:
                    if row.finished:
                        self._leave(row)
                        self._jobs.put(row)
                    else:
                        self._guard.run("telling a step", self._reports.tell_step, [row])
            self._done.clear()
        self._count_rows()

    def _step(self, rows: Sequence[Trajectory]) -> None:
        began = time.monotonic()
        shares, shape = [row.model_rows for row in rows], shape_of(rows)
        step(self._family, rows, self._bucket)
        self._done.append(_DoneStep(rows, shares, shape, began, time.monotonic() - began))

    def _lower_cap(self, rows: Sequence[Trajectory]) -> bool:
        """After a step that did not fit into memory. A single image cannot be made smaller."""
        if len(rows) > 1:
            self._row_caps.lower(rows[0].size, sum(row.model_rows for row in rows))
        return False

    def _note(self, done: _DoneStep) -> None:
        model_rows, counters = sum(done.shares), self._counters
        self._meter.note_step(done.shape, done.seconds)
        time_of_step = StepTime(began=done.began, seconds=done.seconds, rows=model_rows, images=len(done.rows))
        for row, share in zip(done.rows, done.shares, strict=True):
            row.note_step(time_of_step, share)
            row.future.calls_left = row.calls_left
            if row.pass_.context.counts_device_time:
                self._device_time.add(row.pass_.context.owner, done.seconds * share / model_rows)
        counters.step_seconds = done.seconds
        counters.steps += 1
        counters.model_rows += model_rows
        counters.padded_rows += -model_rows % (self._bucket or 1)

    def _leave(self, row: Trajectory) -> None:
        del self._trajectories[row]
        self._scheduler.discard(row)
        self._count_rows()

    def _count_rows(self) -> None:
        self._counters.rows_in_flight = sum(row.model_rows for row in self._trajectories)
