"""The engine: requests in, pictures out, many at once. A library: no Ray, no HTTP."""

import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import Self

import torch

from serve_app.config import ModelConfig
from serve_app.diffusion.table import SamplerTable
from serve_app.diffusion.tables import SamplerTables
from serve_app.engine.admission import admit, first_picture
from serve_app.engine.denoise_loop import DenoiseLoop, EngineCounters
from serve_app.engine.image_future import ImageFuture
from serve_app.engine.memory_use import measure_memory
from serve_app.engine.passes import Callbacks, OnProgress, OnResumePoint, Pass
from serve_app.engine.prompt_cache import PromptCache
from serve_app.engine.scheduler import DeadlineOrder, Scheduler, Size
from serve_app.engine.step_latency import FEW_ROWS, MOST_ROWS, StepCurve, measure
from serve_app.engine.trajectory import EncodeJob, PendingRequest, Trajectory
from serve_app.engine.vae_worker import VaeWorker
from serve_app.errors import DarkroomError, GenerationFailed, NotReady
from serve_app.models.cpu_threads import run_apart
from serve_app.models.denoisers.choose_executor import torch_cores
from serve_app.models.load_family import load_family
from serve_app.models.model_family import DenoisingBatch, ModelFamily, Prompt
from serve_app.models.preview_decoder import choose_preview_decoder
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import GeneratedImage, MemoryUse, Queued, ResumePoint
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.resolve import resolve


class Engine:
    """Continuous batching for one checkpoint on one device. Thread-safe; a context manager.

    Args:
        family: the loaded checkpoint.
        config: its `ModelConfig`, for defaults, limits and `engine:`.
        scheduler: the policy that picks each step's rows; by default the earliest deadline first.
    """

    def __init__(
        self, family: ModelFamily, config: ModelConfig, scheduler: Scheduler[Trajectory] | None = None
    ) -> None:
        self.family = family
        self.config = config
        self.capabilities = ModelCapabilities(
            family=type(family).__name__,
            source=config.source,
            native_size=config.native_size,
            vae_scale_factor=family.autoencoder.scale_factor,
            loras=tuple(config.loras),
            embeddings=tuple(config.embeddings),
        )
        self.curve = run_apart(lambda: measure_curve(family, config))
        self._tables = SamplerTables(family.scheduler_config)
        self._open: set[Future[GeneratedImage]] = set()
        self._settled = threading.Condition()
        self._closed = False
        self._loop = DenoiseLoop(
            family,
            scheduler or DeadlineOrder(self._cap, self.curve.seconds_of),
            PromptCache(
                family, 1 if config.engine.deterministic else config.engine.encode_batch, config.engine.prompt_cache
            ),
            config.engine.bucket_rows if config.engine.deterministic else None,
            torch_cores(config),
            config.engine.resume_interval_s,
            lambda job: self._vae_worker.take(job),
            lambda preview: self._vae_worker.take(preview),
            self._on_failed,
        )
        preview_decoder = run_apart(lambda: choose_preview_decoder(family, config))
        self._vae_worker = VaeWorker(family, config.engine, preview_decoder, self._loop.submit, _settle)
        self._loop.thread.start()

    @classmethod
    def load(cls, config: ModelConfig, gpu_share: float = 1.0) -> Self:
        """Load the checkpoint, measure its batch curve, draw one warm-up image. Raises ModelLoadError.

        `gpu_share` is the part of a GPU's memory that this process may take.
        """
        engine = cls(run_apart(lambda: load_family(config, gpu_share)), config)
        engine.generate(GenerationParams(prompt="warm-up", num_inference_steps=2, seed=0))
        return engine

    def generate(self, params: GenerationParams) -> list[GeneratedImage]:
        """Draw all images of a request, together in the batch, and wait for them.

        Raises what `resolve` and `submit` raise, and what the images' futures raise.
        """
        requests = resolve(params, self.config.source, self.capabilities)
        return [future.result() for future in [self.submit(request) for request in requests]]

    def submit(
        self,
        request: GenerationRequest,
        on_progress: OnProgress | None = None,
        context: CallerContext | None = None,
        on_resume_point: OnResumePoint | None = None,
        resume_from: ResumePoint | None = None,
    ) -> ImageFuture:
        """Let a request join the batch. See `ImageFuture` for how to leave it.

        `on_progress` is called from the engine's threads after every step but the last: it must be quick. `context`
        says how many previews it gets, and the request's priority. `on_resume_point` is called likewise, after every
        `resume_interval_s` seconds: with what it gets as `resume_from`, another engine goes on from there.

        Raises:
            InvalidRequest: a step count its sampler refuses, or a size the VAE cannot make.
            NotReady: the engine is closed.
        """
        if self._closed:
            raise NotReady("the engine is closed")
        callbacks = Callbacks(context or CallerContext(), on_progress, on_resume_point)
        pass_ = run_apart(lambda: admit(request, self.family, self.table, callbacks, resume_from))
        self._open.add(pass_.future)
        pass_.future.add_done_callback(self._on_settled)
        init = first_picture(pass_, self.family)
        if init is None:
            self._loop.submit(PendingRequest(pass_))
        else:
            self._vae_worker.take(EncodeJob(replace(pass_, request=replace(pass_.request, init=init)), init))
        return pass_.future

    def table(self, request: GenerationRequest) -> SamplerTable:
        """The request's sampler as a table, compiled when first asked for."""
        sampling = request.sampling
        steps, skipped = sampling.num_inference_steps, request.skipped_steps
        return self._tables.table(sampling.sampler, sampling.scheduler, steps, skipped)

    @property
    def counters(self) -> EngineCounters:
        """Steps done, rows in flight, cancellations."""
        return self._loop.counters

    def memory(self) -> MemoryUse:
        """What this process holds, of its device too."""
        return measure_memory(self.family.device)

    def queue(self) -> Queued:
        """Where a request that came now would stand."""
        cap = self._cap(self._native_latents)
        waiting = max(0, self.counters.rows_in_flight - cap)
        ahead = -(-waiting // 2)
        calls = self.capabilities.defaults.num_inference_steps
        return Queued(ahead, waiting / cap * calls * self.counters.step_seconds)

    @property
    def _native_latents(self) -> Size:
        side = self.config.native_size // self.family.autoencoder.scale_factor
        return side, side

    def check_health(self) -> None:
        """Raise NotReady where the loop has died or hangs, or the device no longer answers."""
        for thread in (self._loop.thread, self._vae_worker.thread):
            if not thread.is_alive():
                raise NotReady(f"the engine's {thread.name} thread has ended")
        silent = time.monotonic() - self._loop.last_beat
        if silent > self.config.engine.stall_seconds:
            raise NotReady(f"the engine has not moved for {silent:.0f} s")
        if self.family.device.type == "cuda":
            torch.zeros(1, device=self.family.device).item()

    def close(self) -> None:
        """Take no more, finish what is in flight, stop."""
        if not self._closed:
            self._closed = True
            with self._settled:
                self._settled.wait_for(lambda: not self._open)
            self._loop.stop()
            self._vae_worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cap(self, size: Size) -> int:
        engine = self.config.engine
        return engine.max_rows or (engine.bucket_rows if engine.deterministic else self.curve.cap(size))

    def _on_settled(self, future: Future[GeneratedImage]) -> None:
        """Finished, failed or cancelled."""
        with self._settled:
            self._open.discard(future)
            self._settled.notify_all()

    def _on_failed(self, item: PendingRequest | Trajectory, error: Exception) -> None:
        known = isinstance(error, DarkroomError)
        _settle(item.pass_, error if known else GenerationFailed(f"{type(error).__name__}: {error}"))


def _settle(pass_: Pass, outcome: GeneratedImage | Exception) -> None:
    """Complete the caller's future, unless it was cancelled."""
    if not pass_.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        pass_.future.set_exception(outcome)
    else:
        pass_.future.set_result(outcome)


def measure_curve(family: ModelFamily, config: ModelConfig) -> StepCurve:
    """Time the UNet at the model's native size over growing batches; over few where the config says how wide to go."""
    autoencoder = family.autoencoder
    side = config.native_size // autoencoder.scale_factor
    channels = autoencoder.latent_channels + family.mask_channels

    def forward(rows: int) -> None:
        latents = torch.zeros(rows, channels, side, side, device=family.device)
        timesteps = torch.full((rows,), 500.0, device=family.device)
        scales = torch.ones(rows, device=family.device)
        try:
            family.predict(DenoisingBatch(latents, timesteps, scales, [conditioning] * rows)).sum().item()
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{rows} UNet rows at {config.native_size} pixels: {error}") from error

    with torch.inference_mode():
        conditioning = family.encode([Prompt("warm-up")])[0]
        chosen = config.engine.max_rows is not None or config.engine.deterministic
        return measure(forward, (side, side), FEW_ROWS if chosen else MOST_ROWS)
