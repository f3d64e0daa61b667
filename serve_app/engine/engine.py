"""The engine: requests in, images out, many at once. A library: no Ray, no HTTP."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self

import torch

from serve_app.config import ModelConfig
from serve_app.diffusion.table import SamplerTable
from serve_app.diffusion.tables import SamplerTables
from serve_app.engine.denoise_loop import DenoiseLoop, EngineCounters
from serve_app.engine.image_future import ImageFuture
from serve_app.engine.memory_use import measure_memory
from serve_app.engine.passes import Callbacks, Pass, is_planned_at_once, plan_passes, table_of
from serve_app.engine.prompt_cache import PromptCache
from serve_app.engine.scheduler import DeadlineOrder, Scheduler
from serve_app.engine.step_latency import measure_curve
from serve_app.engine.trajectory import Inbox, Jobs, Trajectory
from serve_app.engine.vae_worker import VaeWorker
from serve_app.errors import NotReady
from serve_app.models.cpu_threads import run_apart
from serve_app.models.denoisers.choose_executor import torch_cores
from serve_app.models.load_family import load_family
from serve_app.models.model_family import ModelFamily
from serve_app.models.preview_decoder import choose_preview_decoder
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.events import GeneratedImage, MemoryUse, Queued, ResumePoint
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import CallerContext, GenerationRequest
from serve_app.requests.resolve import resolve


class Engine:
    """Continuous batching for one checkpoint on one device. Thread-safe; a context manager.

    It owns two threads and the queues between them: the inbox of the denoise loop, and the jobs of the VAE worker.

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
        self._tables = SamplerTables(family.scheduler_config)
        self.capabilities = self._find_capabilities()
        self.curve = run_apart(lambda: measure_curve(family, config))
        self._inbox, self._jobs = Inbox(), Jobs()
        self._open: set[ImageFuture] = set()
        self._settled = threading.Condition()
        self._closed = False
        self._ended_thread = ""
        encode_batch = 1 if config.engine.deterministic else config.engine.encode_batch
        self._loop = DenoiseLoop(
            family=family,
            config=config.engine,
            scheduler=scheduler or DeadlineOrder(self.curve.cap, self.curve.seconds_of),
            prompt_cache=PromptCache(family, encode_batch, config.engine.prompt_cache_mb * 2**20),
            cores=torch_cores(config),
            inbox=self._inbox,
            jobs=self._jobs,
        )
        worker = VaeWorker(
            family=family,
            config=config.engine,
            preview_decoder=run_apart(lambda: choose_preview_decoder(family, config)),
            inbox=self._inbox,
            jobs=self._jobs,
        )
        self._decode_thread = self._start("decode", worker.run)
        worker.cores_claimed.wait()  # the last thread to claim cores should be the one with most: see `claim_cores`
        self._denoise_thread = self._start("denoise", self._loop.run)

    def _find_capabilities(self) -> ModelCapabilities:
        """What the checkpoint decides; defaults and limits are those of `requests/`."""
        return ModelCapabilities(
            family=type(self.family).__name__,
            source=self.config.source,
            native_size=self.config.native_size,
            vae_scale_factor=self.family.autoencoder.scale_factor,
            max_clip_skip=self.family.max_clip_skip,
            samplers=run_apart(self._tables.followable_samplers),
            loras=tuple(self.config.loras),
            embeddings=tuple(self.config.embeddings),
        )

    @classmethod
    def load(cls, config: ModelConfig, gpu_share: float = 1.0) -> Self:
        """Load the checkpoint, measure its step curve, draw one warm-up image. Raises ModelLoadError.

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
        context: CallerContext | None = None,
        callbacks: Callbacks | None = None,
        resume_from: ResumePoint | None = None,
    ) -> ImageFuture:
        """Let a request join the batch. See `ImageFuture` for how to leave it.

        Args:
            request: what to draw.
            context: priority, the number of previews, and whether each step's time is kept.
            callbacks: `on_progress` is called after every step but the last; `on_resume_point` about every
                `resume_interval_s` seconds.
            resume_from: a resume point of the same request, told by another engine. The image goes on from there.

        Raises:
            InvalidRequest: the sampler or the model cannot do it, see `plan_passes`.
            GenerationFailed: a LoRA's file cannot be read.
            NotReady: the engine is closed.
        """
        plan = partial(
            plan_passes,
            request,
            family=self.family,
            tables=self._tables,
            context=context or CallerContext(),
            callbacks=callbacks or Callbacks(),
            resume_from=resume_from,
        )
        # A table that must be compiled, or a LoRA that must be read, is work for torch: see `run_apart`.
        pass_ = plan() if is_planned_at_once(request, self._tables) else run_apart(plan)
        self._take(pass_)
        pass_.future.add_done_callback(self._forget)
        return pass_.future

    def _take(self, pass_: Pass) -> None:
        """Under the lock of `close`: either the request is refused, or `close` waits for it."""
        with self._settled:
            if self._closed:
                raise NotReady("the engine is closed")
            self._open.add(pass_.future)
            if pass_.needs_source:
                self._jobs.put(pass_)
            else:
                self._inbox.put(pass_)

    def table(self, request: GenerationRequest) -> SamplerTable:
        """The request's sampler as a table, compiled when first asked for."""
        return table_of(request, self._tables)

    @property
    def counters(self) -> EngineCounters:
        """Steps done, rows in flight, cancellations."""
        return self._loop.counters

    def memory(self) -> MemoryUse:
        """What this process holds, of its device too."""
        return measure_memory(self.family.device)

    def queue(self) -> Queued:
        """How long a request that came now would wait, as of the rows in flight and the last step's time."""
        side = self.config.native_size // self.family.autoencoder.scale_factor
        cap = self.curve.cap((side, side))
        waiting = max(0, self.counters.rows_in_flight - cap)
        calls = self.capabilities.defaults.num_inference_steps
        start_s = waiting / cap * calls * self.counters.step_seconds
        return Queued(position=-(-waiting // 2), estimated_start_s=start_s)

    def check_health(self) -> None:
        """Raise NotReady where a thread has died or the loop hangs; touch the GPU, which raises if it is lost."""
        if self._ended_thread:
            raise NotReady(f"the engine's {self._ended_thread} thread has ended")
        silent = time.monotonic() - self._loop.last_beat
        if silent > self.config.engine.stall_seconds:
            raise NotReady(f"the engine has not moved for {silent:.0f} s")
        if self.family.device.type == "cuda":
            torch.zeros(1, device=self.family.device).item()

    def close(self) -> None:
        """Take no more requests, finish those that were taken, stop the threads."""
        with self._settled:
            self._closed = True
            self._settled.wait_for(lambda: not self._open)
        self._inbox.put(None)
        self._denoise_thread.join()
        self._jobs.put(None)
        self._decode_thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, name: str, run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._run_thread, args=(name, run), name=name, daemon=True)
        thread.start()
        return thread

    def _run_thread(self, name: str, run: Callable[[], None]) -> None:
        """If a thread dies of an error that belongs to no request, the open images fail and the engine closes."""
        try:
            run()
        finally:
            with self._settled:
                self._closed = True
                self._ended_thread = self._ended_thread or name
                left = list(self._open)
            for future in left:
                future.settle(NotReady(f"the engine's {name} thread has ended"))

    def _forget(self, future: Future[GeneratedImage]) -> None:
        """`close` waits until no future is open."""
        with self._settled:
            self._open -= {future}
            self._settled.notify_all()
