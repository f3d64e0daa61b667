"""The engine: requests in, images out, many at once. A library: no Ray, no HTTP."""

import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import torch

from serve_app.config import ModelConfig
from serve_app.diffusion.table import SamplerTable
from serve_app.diffusion.tables import SamplerTables
from serve_app.engine.denoise_loop import DenoiseLoop, EngineCounters
from serve_app.engine.device_time import DeviceTime
from serve_app.engine.find_capabilities import find_capabilities
from serve_app.engine.image_future import ImageFuture
from serve_app.engine.load_meter import LoadMeter
from serve_app.engine.memory_use import measure_memory
from serve_app.engine.open_images import OpenImages
from serve_app.engine.passes import Callbacks, Pass, is_planned_at_once, plan_passes, table_of
from serve_app.engine.prompt_cache import PromptCache
from serve_app.engine.running_work import RunningWork
from serve_app.engine.scheduler import DeadlineOrder, Scheduler
from serve_app.engine.step_latency import measure_curve
from serve_app.engine.thread_queues import Inbox, Jobs
from serve_app.engine.trajectory import Trajectory
from serve_app.engine.vae_worker import VaeWorker
from serve_app.errors import Draining, NotReady
from serve_app.models.cpu_threads import run_apart
from serve_app.models.denoisers.choose_executor import torch_cores
from serve_app.models.load_family import load_family
from serve_app.models.model_family import ModelFamily
from serve_app.models.preview_decoder import choose_preview_decoder
from serve_app.requests.events import GeneratedImage, MemoryUse, Queued, ReplicaLoad, ResumePoint
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
        self.capabilities = find_capabilities(family, config, self._tables)
        self.curve = run_apart(lambda: measure_curve(family, config))
        self._inbox, self._jobs = Inbox(), Jobs()
        self._open = OpenImages(family.autoencoder.scale_factor)
        self._running = RunningWork(config.engine.stall_seconds)
        self._meter = LoadMeter.configured(self.curve, config)
        self.device_time = DeviceTime()
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
            open_images=self._open,
            running=self._running,
            meter=self._meter,
            device_time=self.device_time,
        )
        worker = VaeWorker(
            family=family,
            config=config.engine,
            preview_decoder=run_apart(lambda: choose_preview_decoder(family, config)),
            inbox=self._inbox,
            jobs=self._jobs,
            open_images=self._open,
            running=self._running,
        )
        self._decode_thread = self._start("decode", worker.run)
        worker.cores_claimed.wait()  # the last thread to claim cores should be the one with most: see `claim_cores`
        self._denoise_thread = self._start("denoise", self._loop.run)

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
            NotReady: the engine is closed; Draining after `hand_over`.
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
        self._open.add(pass_, self._enqueue)
        return pass_.future

    def _enqueue(self, pass_: Pass) -> None:
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

    def replica_load(self) -> ReplicaLoad:
        """What is in flight and how long it still takes. Cheap, from any thread, also while a step runs.

        The running step is whatever the engine's threads do, not only denoising: see `RunningWork`.
        """
        step_age_s, step_limit_s = self._running.nearest_limit()
        return ReplicaLoad(
            images=len(self._open),
            work_s=self._meter.work_s(self._open.calls_left()),
            step_age_s=step_age_s,
            step_limit_s=step_limit_s,
            curve=self.curve,
            slowdown=self._meter.slowdown,
        )

    def hand_over(self) -> None:
        """Give up what is in flight, so that another engine goes on. Returns at once; from any thread.

        After the step that runs now, each image in the batch tells its resume point, and its future settles with
        Draining. So do those that still wait, without a point. What is with the VAE for its file is finished.
        """
        self._open.hand_over(Draining("the engine hands its images over"))

    def check_health(self) -> None:
        """Raise NotReady where a thread has died or the loop hangs; touch the GPU, which raises if it is lost."""
        if self._ended_thread:
            raise NotReady(f"the engine's {self._ended_thread} thread has ended")
        age = self._running.oldest_s()
        if age > self.config.engine.stall_seconds:
            raise NotReady(f"the engine has not moved for {age:.0f} s")
        if self.family.device.type == "cuda":
            torch.zeros(1, device=self.family.device).item()

    def close(self) -> None:
        """Take no more requests, finish those that were taken, stop the threads."""
        self._open.refuse(NotReady("the engine is closed"))
        self._open.wait()
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
            self._ended_thread = self._ended_thread or name
            self._open.end(NotReady(f"the engine's {name} thread has ended"))
