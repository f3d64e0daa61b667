"""The denoise thread. Once per step: take new passes, drop settled ones, encode prompts, plan, step, report."""

import queue
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from serve_app.config import EngineConfig
from serve_app.engine.device_time import DeviceTime
from serve_app.engine.image_future import run_guarded
from serve_app.engine.init_latents import initial_state
from serve_app.engine.load_meter import LoadMeter, StepShape
from serve_app.engine.open_images import OpenImages
from serve_app.engine.passes import Pass
from serve_app.engine.prompt_cache import PromptCache
from serve_app.engine.running_work import RunningWork
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.step import step
from serve_app.engine.thread_queues import Inbox, Jobs, PreviewJob
from serve_app.engine.trajectory import Trajectory
from serve_app.errors import Draining
from serve_app.models.cpu_threads import claim_cores
from serve_app.models.model_family import Conditioning, ModelFamily, Prompt
from serve_app.requests.events import StepTime

MAX_PASSES_ENCODED_AT_ONCE = 8
"""So that the images in the batch do not wait long for many new ones."""

IDLE_BEAT_SECONDS = 1.0


@dataclass(kw_only=True)
class EngineCounters:
    """What the loop has done so far, and the seconds of its last step; read by metrics and health checks."""

    steps: int = 0
    model_rows: int = 0
    rows_in_flight: int = 0
    cancelled: int = 0
    padded_rows: int = 0
    prompts_known: int = 0
    prompts_encoded: int = 0
    step_seconds: float = 0.0


class DenoiseLoop:
    """Takes passes from `inbox`; puts finished trajectories and previews into `jobs`, for the VAE worker.

    A pass or trajectory whose future is settled, by a failure or a cancellation, leaves before the next step.
    Everything but the two queues and the futures belongs to this thread alone.

    Args:
        family: the checkpoint.
        config: bucket size and resume interval are read.
        scheduler: picks the rows of each step.
        prompt_cache: encodes prompts.
        cores: CPU cores for torch.
        inbox: passes to denoise.
        jobs: what the VAE worker does.
        open_images: says when to hand over.
        running: is told each step and each encoding.
        meter: is told what each step takes.
        device_time: is told each image's share of it.
    """

    def __init__(
        self,
        *,
        family: ModelFamily,
        config: EngineConfig,
        scheduler: Scheduler[Trajectory],
        prompt_cache: PromptCache,
        cores: int,
        inbox: Inbox,
        jobs: Jobs,
        open_images: OpenImages,
        running: RunningWork,
        meter: LoadMeter,
        device_time: DeviceTime,
    ) -> None:
        self._family = family
        self._bucket = config.bucket_rows if config.deterministic else None
        self._resume_interval = config.resume_interval_s
        self._scheduler = scheduler
        self._prompt_cache = prompt_cache
        self._cores = cores
        self._inbox = inbox
        self._jobs = jobs
        self._open = open_images
        self._running = running
        self._meter = meter
        self._device_time = device_time
        self._pending: list[Pass] = []
        self._trajectories: dict[Trajectory, None] = {}
        self._stopping = False
        self.counters = EngineCounters()

    def run(self) -> None:
        """Denoise until the inbox has given None and no image is left."""
        claim_cores(self._family.device, self._cores)
        with torch.inference_mode():
            while not (self._stopping and not self._pending and not self._trajectories):
                self._empty_inbox()
                if self._open.is_handing_over:
                    self._hand_over()
                self._drop_settled()
                if self._pending:
                    first = self._pending[:MAX_PASSES_ENCODED_AT_ONCE]
                    with self._running.during_kind("encoding prompts", sum(len(one.prompts) for one in first)):
                        run_guarded("encoding the prompt", self._encode, first)
                plan = self._scheduler.plan()
                if plan is not None:
                    with self._running.during(self._meter.step_limit(shape_of(plan.rows))):
                        run_guarded("denoising", self._step, plan.rows)

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
        for row in list(self._trajectories):
            if not row.future.done():
                run_guarded("telling a resume point", self._tell_resume_point, [row])
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
        self.counters.cancelled += sum(one.future.cancelled() for one in (*rows, *settled))

    def _encode(self, passes: Sequence[Pass]) -> None:
        """Encode the prompts of all passes together; the passes become trajectories."""
        began = time.monotonic()
        encoded = self._prompt_cache.encode([prompt for pass_ in passes for prompt in pass_.prompts])
        seconds = time.monotonic() - began
        self.counters.prompts_known = self._prompt_cache.known
        self.counters.prompts_encoded = self._prompt_cache.encoded
        rows = [self._begin(pass_, encoded, seconds) for pass_ in passes]
        self._pending = [pass_ for pass_ in self._pending if pass_ not in passes]
        for row in rows:
            self._trajectories[row] = None
            self._scheduler.add(row)
        self._count_rows()

    def _begin(self, pass_: Pass, encoded: Mapping[Prompt, Conditioning], encode_seconds: float) -> Trajectory:
        request, autoencoder = pass_.request, self._family.autoencoder
        factor = autoencoder.scale_factor
        shape = (autoencoder.latent_channels, request.height // factor, request.width // factor)
        initial = initial_state(request, pass_.table, pass_.source, shape, self._family.device)
        conditioning = [encoded[one.prompt] for one in pass_.prompts]
        return Trajectory(pass_, conditioning, initial, encode_seconds, deterministic=self._bucket is not None)

    def _step(self, rows: Sequence[Trajectory]) -> None:
        """One step for `rows`; then tell their callers, and pass the finished to the VAE worker."""
        began = time.monotonic()
        shares = [row.model_rows for row in rows]
        model_rows = sum(shares)
        shape = shape_of(rows)
        step(self._family, rows, self._bucket)
        seconds = time.monotonic() - began
        self._meter.note_step(shape, seconds)
        done = StepTime(began=began, seconds=seconds, rows=model_rows, images=len(rows))
        for row, share in zip(rows, shares, strict=True):
            row.note_step(done, share)
            row.future.calls_left = row.calls_left
            if row.pass_.context.counts_device_time:
                self._device_time.add(row.pass_.context.owner, seconds * share / model_rows)
        self.counters.step_seconds = seconds
        self.counters.steps += 1
        self.counters.model_rows += model_rows
        self.counters.padded_rows += -model_rows % (self._bucket or 1)
        for row in rows:
            self._report(row)
        self._count_rows()

    def _report(self, row: Trajectory) -> None:
        """Finished images go to the VAE worker, as do previews. Else tell the progress, and the resume point if due."""
        if row.finished:
            self._leave(row)
            self._jobs.put(row)
            return
        progress = row.pass_.progress(row.step_index)
        if row.denoised is not None:
            self._jobs.put(PreviewJob(pass_=row.pass_, latents=row.denoised, progress=progress))
        else:
            row.pass_.tell(progress)
        now = time.monotonic()
        if now - (row.saved_at or now) >= self._resume_interval:
            row.saved_at = now
            run_guarded("telling a resume point", self._tell_resume_point, [row])

    def _tell_resume_point(self, rows: Sequence[Trajectory]) -> None:
        for row in rows:
            tell = row.pass_.callbacks.on_resume_point
            if tell is not None:
                tell(row.resume_point())

    def _leave(self, row: Trajectory) -> None:
        del self._trajectories[row]
        self._scheduler.discard(row)
        self._count_rows()

    def _count_rows(self) -> None:
        self.counters.rows_in_flight = sum(row.model_rows for row in self._trajectories)


def shape_of(rows: Sequence[Trajectory]) -> StepShape:
    """The shape of a step of these rows, which have one size."""
    prompts = [prompt for row in rows for prompt in (row.conditioning, row.unconditional) if prompt is not None]
    return StepShape(rows[0].size, len(prompts), frozenset(prompt.num_tokens for prompt in prompts))
