"""The engine: requests in, images out, many at once. A library: no Ray, no HTTP."""

from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

import torch

from serve_app.config import ModelConfig
from serve_app.diffusion.table import SamplerTable
from serve_app.diffusion.tables import SamplerTables
from serve_app.engine.denoise_loop import DenoiseLoop
from serve_app.engine.device_errors import DeviceFault, fault_of
from serve_app.engine.device_time import DeviceTime
from serve_app.engine.engine_counters import EngineCounters
from serve_app.engine.engine_state import EngineState
from serve_app.engine.engine_threads import EngineThreads
from serve_app.engine.find_capabilities import find_capabilities
from serve_app.engine.image_future import ImageFuture
from serve_app.engine.memory_use import measure_memory
from serve_app.engine.passes import Callbacks, is_planned_at_once, plan_passes, table_of
from serve_app.engine.prompt_cache import PromptCache
from serve_app.engine.scheduler import DeadlineOrder, Scheduler
from serve_app.engine.step_latency import measure_curve
from serve_app.engine.trajectory import Trajectory
from serve_app.engine.vae_worker import VaeWorker
from serve_app.errors import DeviceLost, Draining, NotReady
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
        self._state = EngineState.new(family, config, self.curve)
        self._open = self._state.open_images
        encode_batch = 1 if config.engine.deterministic else config.engine.encode_batch
        loop = DenoiseLoop(
            family=family,
            config=config.engine,
            scheduler=scheduler or DeadlineOrder(self._state.row_caps, self.curve.seconds_of),
            prompt_cache=PromptCache(family, encode_batch, config.engine.prompt_cache_mb * 2**20),
            cores=torch_cores(config),
            state=self._state,
        )
        worker = VaeWorker(
            family=family,
            config=config.engine,
            preview_decoder=run_apart(lambda: choose_preview_decoder(family, config)),
            state=self._state,
        )
        self._threads = EngineThreads(self._open)
        self._threads.start("decode", worker.run)
        worker.cores_claimed.wait()  # the last thread to claim cores should be the one with most: see `claim_cores`
        self._threads.start("denoise", loop.run)

    @classmethod
    def load(cls, config: ModelConfig, gpu_share: float = 1.0) -> Self:
        """Load the checkpoint, measure its step curve, draw one warm-up image. Raises ModelLoadError.

        `gpu_share` is the part of a GPU's memory that this process may take.
        """
        with ExitStack() as closing:
            engine = closing.enter_context(cls(run_apart(lambda: load_family(config, gpu_share)), config))
            engine.generate(GenerationParams(prompt="warm-up", num_inference_steps=2, seed=0))
            closing.pop_all()
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
        self._open.add(pass_)
        return pass_.future

    def table(self, request: GenerationRequest) -> SamplerTable:
        """The request's sampler as a table, compiled when first asked for."""
        return table_of(request, self._tables)

    @property
    def counters(self) -> EngineCounters:
        """Steps done, rows in flight, cancellations."""
        return self._state.counters

    @property
    def device_time(self) -> DeviceTime:
        """How long the device has worked for each owner."""
        return self._state.device_time

    def memory(self) -> MemoryUse:
        """What this process holds, of its device too."""
        return measure_memory(self.family.device)

    def queue(self) -> Queued:
        """How long a request that came now would wait, as of the rows in flight and the last step's time."""
        side = self.config.native_size // self.family.autoencoder.scale_factor
        cap = self._state.row_caps((side, side))
        waiting = max(0, self.counters.rows_in_flight - cap)
        calls = self.capabilities.defaults.num_inference_steps
        start_s = waiting / cap * calls * self.counters.step_seconds
        return Queued(position=-(-waiting // 2), estimated_start_s=start_s)

    def replica_load(self) -> ReplicaLoad:
        """What is in flight and how long it still takes. Cheap, from any thread, also while a step runs.

        The running step is whatever the engine's threads do, not only denoising: see `RunningWork`.
        """
        step_age_s, step_limit_s = self._state.running.nearest_limit()
        return ReplicaLoad(
            images=len(self._open),
            work_s=self._state.meter.work_s(self._open.work_left()),
            step_age_s=step_age_s,
            step_limit_s=step_limit_s,
            curve=self.curve,
            slowdown=self._state.meter.slowdown,
        )

    def hand_over(self) -> None:
        """Give up what is in flight, so that another engine goes on. Returns at once; from any thread.

        After the step that runs now, each image in the batch tells its resume point, and its future settles with
        Draining. So do those that still wait, without a point. What is with the VAE for its file is finished.
        """
        self._open.hand_over(Draining("the engine hands its images over"))

    def check_health(self) -> None:
        """Touch the GPU, and raise where the engine is of no use any more.

        Raises:
            DeviceLost: the device is broken, or a thread has died of an error.
            NotReady: the engine is closed, or a thread hangs.
        """
        self._threads.check()
        age = self._state.running.oldest_s()
        if age > self.config.engine.stall_seconds:
            raise NotReady(f"the engine has not moved for {age:.0f} s")
        if self.family.device.type == "cuda":
            self._touch_device()

    def _touch_device(self) -> None:
        try:
            torch.zeros(1, device=self.family.device).item()
        except RuntimeError as error:
            if fault_of(error) is DeviceFault.LOST:
                self._open.end(DeviceLost(f"the health check failed: {error}"))
                self._threads.check()

    def close(self) -> None:
        """Take no more requests, finish those that were taken, stop the threads."""
        self._open.refuse(NotReady("the engine is closed"))
        self._open.wait()
        self._state.inbox.put(None)
        self._threads.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
