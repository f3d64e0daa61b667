"""`EngineState`: what an engine and its two threads share."""

from dataclasses import dataclass
from typing import Self

from serve_app.config import ModelConfig
from serve_app.engine.device_time import DeviceTime
from serve_app.engine.engine_counters import EngineCounters
from serve_app.engine.load_meter import LoadMeter
from serve_app.engine.open_images import OpenImages
from serve_app.engine.row_caps import RowCaps
from serve_app.engine.running_work import RunningWork
from serve_app.engine.thread_queues import Inbox, Jobs
from serve_app.engine.work_guard import WorkGuard
from serve_app.models.model_family import ModelFamily
from serve_app.requests.step_curve import StepCurve


@dataclass(frozen=True, eq=False, kw_only=True)
class EngineState:
    """Each part is thread-safe, or written by one thread and read by others.

    `inbox` and `jobs` are the queues to the denoise loop and to the VAE worker. `open_images` says when to hand over
    and when to end. `guard` does the work on the device, `running` knows what is being done. `row_caps` are the rows
    worth batching. `meter` and `device_time` are told what each step takes.
    """

    inbox: Inbox
    jobs: Jobs
    open_images: OpenImages
    counters: EngineCounters
    guard: WorkGuard
    running: RunningWork
    row_caps: RowCaps
    meter: LoadMeter
    device_time: DeviceTime

    @classmethod
    def new(cls, family: ModelFamily, config: ModelConfig, curve: StepCurve) -> Self:
        """That of an engine that has done nothing yet."""
        inbox, jobs, counters = Inbox(), Jobs(), EngineCounters()
        return cls(
            inbox=inbox,
            jobs=jobs,
            open_images=OpenImages(family.autoencoder.scale_factor, inbox, jobs),
            counters=counters,
            guard=WorkGuard(family.device, counters),
            running=RunningWork(config.engine.stall_seconds),
            row_caps=RowCaps(curve.cap),
            meter=LoadMeter.configured(curve, config),
            device_time=DeviceTime(),
        )
