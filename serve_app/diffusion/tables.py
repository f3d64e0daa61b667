"""The tables of one checkpoint, compiled when first asked for."""

import copy
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from serve_app.diffusion.compiler import compile_table, new_scheduler, refuse_nonlinear
from serve_app.diffusion.table import SamplerTable


class SamplerTables:
    """Compiles tables, one at a time, and keeps the last `size` of them; thread-safe.

    Args:
        scheduler_config: the checkpoint's own `scheduler/scheduler_config.json`.
    """

    def __init__(self, scheduler_config: Mapping[str, object], size: int = 512) -> None:
        refuse_nonlinear(scheduler_config)
        lock = threading.Lock()

        @lru_cache
        def scheduler(sampler: str, schedule: str) -> Any:
            # Kept because some classes take a quarter of a second to construct.
            return new_scheduler(scheduler_config, sampler, schedule)

        @lru_cache(size)
        def compiled(sampler: str, schedule: str, num_inference_steps: int, skipped: int) -> SamplerTable:
            fresh = copy.deepcopy(scheduler(sampler, schedule))
            return compile_table(fresh, num_inference_steps, f"sampler {sampler} with scheduler {schedule}", skipped)

        @lru_cache(size)
        def in_turn(*wanted: Any) -> SamplerTable:
            # Compiling is thousands of tiny operators, each of which gives up the interpreter: threads that do it
            # at once take three times as long, and hold up the denoising thread all the while.
            with lock:
                return compiled(*wanted)

        self._compiled = in_turn

    def table(self, sampler: str, schedule: str, num_inference_steps: int, skipped: int = 0) -> SamplerTable:
        """The table of `sampler` following `schedule` over `num_inference_steps`, of which the first are `skipped`.

        Raises:
            InvalidRequest: a step count the scheduler itself refuses.
        """
        return self._compiled(sampler, schedule, num_inference_steps, skipped)
