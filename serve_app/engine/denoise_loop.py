"""The engine's thread: take pending, plan, step, hand over what is finished; once per denoising step."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from serve_app.engine.init_latents import start
from serve_app.engine.prompt_cache import PromptCache
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.step import step
from serve_app.engine.trajectory import DecodeJob, PendingRequest, Preview, Trajectory
from serve_app.models.cpu_threads import claim_cores
from serve_app.models.model_family import Conditioning, ModelFamily, Prompt
from serve_app.requests.events import StepTime, Timings

log = logging.getLogger("darkroom.engine")

InFlight = TypeVar("InFlight", PendingRequest, Trajectory)
OnFailed = Callable[[PendingRequest | Trajectory, Exception], None]
IDLE_BEAT_SECONDS = 1.0


@dataclass
class EngineCounters:
    """What the loop has done so far, and how long its last step took; read by tests, metrics and health checks."""

    steps: int = 0
    model_rows: int = 0
    rows_in_flight: int = 0
    cancelled: int = 0
    padded_rows: int = 0
    prompts_known: int = 0
    prompts_encoded: int = 0
    step_seconds: float = 0.0


class DenoiseLoop:
    """Owns the thread and everything between an pending and its last step. Nothing here is shared but the inbox."""

    def __init__(
        self,
        family: ModelFamily,
        scheduler: Scheduler[Trajectory],
        encoder: PromptCache,
        bucket: int | None,
        cores: int,
        resume_interval: float,
        on_exposed: Callable[[DecodeJob], None],
        on_preview: Callable[[Preview], None],
        on_failed: OnFailed,
    ) -> None:
        self._family = family
        self._scheduler = scheduler
        self._encoder = encoder
        self._bucket = bucket
        self._cores = cores
        self._resume_interval = resume_interval
        self._on_exposed = on_exposed
        self._on_preview = on_preview
        self._on_failed = on_failed
        self._inbox: queue.SimpleQueue[PendingRequest | None] = queue.SimpleQueue()
        self._pending: list[PendingRequest] = []
        self._trajectories: dict[Trajectory, None] = {}
        self._stopping = False
        self.counters = EngineCounters()
        self.last_beat = time.monotonic()
        self.thread = threading.Thread(target=self._run, name="denoise", daemon=True)

    def submit(self, pending: PendingRequest) -> None:
        """Let a request join before the next step. From any thread."""
        self._inbox.put(pending)

    def stop(self) -> None:
        """Finish everything that was submitted, then end the thread."""
        self._inbox.put(None)
        self.thread.join()

    def _run(self) -> None:
        claim_cores(self._family.device, self._cores)
        with torch.inference_mode():
            while not (self._stopping and not self._pending and not self._trajectories):
                self.last_beat = time.monotonic()
                self._take_arrivals()
                self._drop_cancelled()
                self._guarded(self._encode, self._pending[:8])
                plan = self._scheduler.plan()
                if plan is not None:
                    self._guarded(self._step, plan.rows)

    def _take_arrivals(self) -> None:
        """Empty the inbox; where there is nothing else to do, wait for it a moment."""
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

    def _drop_cancelled(self) -> None:
        """Free the rows of requests whose caller has gone."""
        gone = [row for row in self._trajectories if row.pass_.future.cancelled()]
        for row in gone:
            self._leave(row)
        waiting = [pending for pending in self._pending if not pending.pass_.future.cancelled()]
        self.counters.cancelled += len(gone) + len(self._pending) - len(waiting)
        self._pending = waiting

    def _guarded(self, work: Callable[[Sequence[InFlight]], None], items: Sequence[InFlight]) -> None:
        """Do `work` on `items`; where it fails, do it one by one, so that only the guilty fail."""
        if not items:
            return
        try:
            work(items)
        except Exception as error:
            # The engine-loop boundary: one request's failure is its own, and the loop goes on.
            if len(items) > 1:
                for item in items:
                    self._guarded(work, (item,))
                return
            log.warning("a request failed", exc_info=error)
            self._forget(items[0])
            self._on_failed(items[0], error)

    def _forget(self, item: PendingRequest | Trajectory) -> None:
        if isinstance(item, Trajectory):
            self._leave(item)
        else:
            self._pending = [pending for pending in self._pending if pending is not item]

    def _encode(self, pending: Sequence[PendingRequest]) -> None:
        """Encode the prompts of `pending` together; they become trajectories."""
        start = time.monotonic()
        known = self._encoder.encode([prompt for pending in pending for prompt in pending.pass_.prompts])
        seconds = time.monotonic() - start
        self.counters.prompts_known = self._encoder.known
        self.counters.prompts_encoded = self._encoder.encoded
        rows = [self._start(one, known, seconds) for one in pending]
        for one, row in zip(pending, rows, strict=True):
            self._forget(one)
            self._trajectories[row] = None
            self._scheduler.add(row)
        self._count()

    def _start(
        self, pending: PendingRequest, known: Mapping[Prompt, Conditioning], encode_seconds: float
    ) -> Trajectory:
        pass_, autoencoder = pending.pass_, self._family.autoencoder
        factor = autoencoder.scale_factor
        shape = (autoencoder.latent_channels, pass_.request.height // factor, pass_.request.width // factor)
        begun = start(pass_.request, pass_.table, pending.source, shape, self._family.device)
        return Trajectory(pass_, [known[prompt] for prompt in pass_.prompts], begun, encode_seconds)

    def _step(self, rows: Sequence[Trajectory]) -> None:
        """One step for `rows`; the finished leave for the VAE."""
        began = time.monotonic()
        shares = [row.model_rows for row in rows]
        model_rows = sum(shares)
        step(self._family, rows, self._bucket)
        self.counters.step_seconds = time.monotonic() - began
        done = StepTime(began, self.counters.step_seconds, model_rows, len(rows))
        for row, share in zip(rows, shares, strict=True):
            row.note_step(done, share)
        self.counters.steps += 1
        self.counters.model_rows += model_rows
        self.counters.padded_rows += -model_rows % (self._bucket or 1)
        for row in rows:
            self._guarded(self._report, (row,))
        self._count()

    def _report(self, rows: Sequence[Trajectory]) -> None:
        """Tell each row's caller how far it is; expose what is finished."""
        for row in rows:
            if row.finished:
                self._leave(row)
                self._on_exposed(_expose(row))
            elif row.denoised is not None:
                self._on_preview(Preview(row.pass_, row.denoised, row.pass_.progress(row.step_index)))
            else:
                row.pass_.tell(row.pass_.progress(row.step_index))
            self._save(row)

    def _save(self, row: Trajectory) -> None:
        """Tell whoever wants it where the row stands, once enough work would be lost."""
        now, tell = time.monotonic(), row.pass_.callbacks.on_resume_point
        if tell is not None and not row.finished and now - (row.saved or now) >= self._resume_interval:
            row.saved = now
            tell(row.checkpoint())

    def _leave(self, row: Trajectory) -> None:
        if row in self._trajectories:
            del self._trajectories[row]
            self._scheduler.discard(row)
            self._count()

    def _count(self) -> None:
        self.counters.rows_in_flight = sum(row.model_rows for row in self._trajectories)


def _expose(row: Trajectory) -> DecodeJob:
    now = time.monotonic()
    started = row.first_step or now
    earlier = row.pass_.earlier
    spent = Timings(
        queue=earlier.queue + started - row.pass_.submitted - row.encode_seconds,
        encode=earlier.encode + row.encode_seconds,
        denoise=earlier.denoise + now - started,
        decode=earlier.decode,
        device=earlier.device + row.device_seconds,
        steps=(*earlier.steps, *row.steps),
    )
    pass_ = replace(row.pass_, following=None) if row.interrupt else row.pass_
    return DecodeJob(pass_, row.result.clone(), spent, now)
