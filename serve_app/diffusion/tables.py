"""The tables of one checkpoint, compiled when first asked for."""

import copy
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from serve_app.diffusion.compiler import compile_table, new_scheduler, refuse_nonlinear
from serve_app.diffusion.samplers import check_pair
from serve_app.diffusion.table import SamplerTable


class SamplerTables:
    """Compiles tables and keeps the last `size` of them; thread-safe.

    Args:
        scheduler_config: the checkpoint's own `scheduler/scheduler_config.json`.
    """

    def __init__(self, scheduler_config: Mapping[str, object], size: int = 512) -> None:
        refuse_nonlinear(scheduler_config)

        @lru_cache
        def scheduler(sampler: str, schedule: str) -> Any:
            # Kept because some classes take a quarter of a second to construct.
            return new_scheduler(scheduler_config, sampler, schedule)

        @lru_cache(size)
        def compiled(sampler: str, schedule: str, num_inference_steps: int, skipped: int) -> SamplerTable:
            fresh = copy.deepcopy(scheduler(sampler, schedule))
            return compile_table(fresh, num_inference_steps, f"sampler {sampler} with scheduler {schedule}", skipped)

        self._compiled = compiled

    def table(self, sampler: str, schedule: str, num_inference_steps: int, skipped: int = 0) -> SamplerTable:
        """The table of `sampler` following `schedule` over `num_inference_steps`, of which the first are `skipped`.

        Raises:
            UnknownName: an unknown name, or a schedule the sampler cannot follow.
            InvalidRequest: a step count the scheduler itself refuses.
        """
        check_pair(sampler, schedule)
        return self._compiled(sampler, schedule, num_inference_steps, skipped)
