"""The engine's thread: take arrivals, plan, step, hand over what is finished; once per denoising step."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from serve_app.engine.batch import step
from serve_app.engine.events import StepTime, Timings
from serve_app.engine.prompts import PromptEncoder
from serve_app.engine.scheduler import Scheduler
from serve_app.engine.start import start
from serve_app.engine.trajectory import Arrival, Exposure, Preview, Trajectory
from serve_app.models.family import Conditioning, ModelFamily, Prompt
from serve_app.models.host import claim_cores

log = logging.getLogger("darkroom.engine")

InFlight = TypeVar("InFlight", Arrival, Trajectory)
OnFailed = Callable[[Arrival | Trajectory, Exception], None]
IDLE_BEAT_SECONDS = 1.0


@dataclass
class LoopCounters:
    """What the loop has done so far, and how long its last step took; read by tests, metrics and health checks."""

    steps: int = 0
    model_rows: int = 0
    rows_in_flight: int = 0
    cancelled: int = 0
    padded_rows: int = 0
    prompts_known: int = 0
    prompts_encoded: int = 0
    step_seconds: float = 0.0


class DenoisingLoop:
    """Owns the thread and everything between an arrival and its last step. Nothing here is shared but the inbox."""

    def __init__(
        self,
        family: ModelFamily,
        scheduler: Scheduler[Trajectory],
        encoder: PromptEncoder,
        bucket: int | None,
        cores: int,
        checkpoint_seconds: float,
        on_exposed: Callable[[Exposure], None],
        on_preview: Callable[[Preview], None],
        on_failed: OnFailed,
    ) -> None:
        self._family = family
        self._scheduler = scheduler
        self._encoder = encoder
        self._bucket = bucket
        self._cores = cores
        self._checkpoint_seconds = checkpoint_seconds
        self._on_exposed = on_exposed
        self._on_preview = on_preview
        self._on_failed = on_failed
        self._inbox: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._arrivals: list[Arrival] = []
        self._trajectories: dict[Trajectory, None] = {}
        self._stopping = False
        self.counters = LoopCounters()
        self.last_beat = time.monotonic()
        self.thread = threading.Thread(target=self._run, name="denoise", daemon=True)

    def submit(self, arrival: Arrival) -> None:
        """Let a request join before the next step. From any thread."""
        self._inbox.put(arrival)

    def stop(self) -> None:
        """Finish everything that was submitted, then end the thread."""
        self._inbox.put(None)
        self.thread.join()

    def _run(self) -> None:
        claim_cores(self._family.device, self._cores)
        with torch.inference_mode():
            while not (self._stopping and not self._arrivals and not self._trajectories):
                self.last_beat = time.monotonic()
                self._take_arrivals()
                self._drop_cancelled()
                self._guarded(self._encode, self._arrivals[:8])
                plan = self._scheduler.plan()
                if plan is not None:
                    self._guarded(self._step, plan.rows)

    def _take_arrivals(self) -> None:
        """Empty the inbox; where there is nothing else to do, wait for it a moment."""
        idle = not self._arrivals and not self._trajectories
        try:
            taken = self._inbox.get(timeout=IDLE_BEAT_SECONDS) if idle else self._inbox.get_nowait()
            while True:
                if taken is None:
                    self._stopping = True
                else:
                    self._arrivals.append(taken)
                taken = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _drop_cancelled(self) -> None:
        """Free the rows of requests whose caller has gone."""
        gone = [row for row in self._trajectories if row.ticket.future.cancelled()]
        for row in gone:
            self._leave(row)
        waiting = [arrival for arrival in self._arrivals if not arrival.ticket.future.cancelled()]
        self.counters.cancelled += len(gone) + len(self._arrivals) - len(waiting)
        self._arrivals = waiting

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

    def _forget(self, item: Arrival | Trajectory) -> None:
        if isinstance(item, Trajectory):
            self._leave(item)
        else:
            self._arrivals = [arrival for arrival in self._arrivals if arrival is not item]

    def _encode(self, arrivals: Sequence[Arrival]) -> None:
        """Encode the prompts of `arrivals` together; they become trajectories."""
        start = time.monotonic()
        known = self._encoder.encode([prompt for arrival in arrivals for prompt in arrival.ticket.prompts])
        seconds = time.monotonic() - start
        self.counters.prompts_known = self._encoder.known
        self.counters.prompts_encoded = self._encoder.encoded
        rows = [self._start(arrival, known, seconds) for arrival in arrivals]
        for arrival, row in zip(arrivals, rows, strict=True):
            self._forget(arrival)
            self._trajectories[row] = None
            self._scheduler.add(row)
        self._count()

    def _start(self, arrival: Arrival, known: Mapping[Prompt, Conditioning], encode_seconds: float) -> Trajectory:
        ticket, autoencoder = arrival.ticket, self._family.autoencoder
        factor = autoencoder.scale_factor
        shape = (autoencoder.latent_channels, ticket.request.height // factor, ticket.request.width // factor)
        begun = start(ticket.request, ticket.table, arrival.source, shape, self._family.device)
        return Trajectory(ticket, [known[prompt] for prompt in ticket.prompts], begun, encode_seconds)

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
                self._on_preview(Preview(row.ticket, row.denoised, row.ticket.progress(row.step_index)))
            else:
                row.ticket.tell(row.ticket.progress(row.step_index))
            self._save(row)

    def _save(self, row: Trajectory) -> None:
        """Tell whoever wants it where the row stands, once enough work would be lost."""
        now, tell = time.monotonic(), row.ticket.listening.on_checkpoint
        if tell is not None and not row.finished and now - (row.saved or now) >= self._checkpoint_seconds:
            row.saved = now
            tell(row.checkpoint())

    def _leave(self, row: Trajectory) -> None:
        if row in self._trajectories:
            del self._trajectories[row]
            self._scheduler.discard(row)
            self._count()

    def _count(self) -> None:
        self.counters.rows_in_flight = sum(row.model_rows for row in self._trajectories)


def _expose(row: Trajectory) -> Exposure:
    now = time.monotonic()
    started = row.first_step or now
    earlier = row.ticket.earlier
    spent = Timings(
        queue=earlier.queue + started - row.ticket.submitted - row.encode_seconds,
        encode=earlier.encode + row.encode_seconds,
        denoise=earlier.denoise + now - started,
        decode=earlier.decode,
        device=earlier.device + row.device_seconds,
        steps=(*earlier.steps, *row.steps),
    )
    ticket = replace(row.ticket, following=None) if row.cut_short else row.ticket
    return Exposure(ticket, row.result.clone(), spent, now)
