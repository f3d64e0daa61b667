"""The tables of one checkpoint, compiled when they are first asked for."""

import threading
from collections.abc import Mapping

from serve_app.diffusion.compiler import compile_table
from serve_app.diffusion.new_scheduler import new_quick_scheduler, refuse_nonlinear
from serve_app.diffusion.table import STATE_SLOTS, SamplerTable
from serve_app.errors import InvalidRequest, ModelLoadError
from serve_app.requests.samplers import SAMPLERS

PROBES = (2 * STATE_SLOTS + 1, 4, 1)
"""Step counts to try a sampler with. The first is enough for any solver whose memory fits into the state to reach its
full order and to end; the others are for schedulers that were distilled for few steps."""


class SamplerTables:
    """Compiles tables and keeps the last of them. Thread-safe.

    Args:
        scheduler_config: the checkpoint's own `scheduler/scheduler_config.json`.
        max_bytes: how much is kept. A table of 25 steps has up to 8 KB.
    """

    def __init__(self, scheduler_config: Mapping[str, object], max_bytes: int = 16 * 2**20) -> None:
        refuse_nonlinear(scheduler_config)
        self._scheduler_config = scheduler_config
        self._max_bytes = max_bytes
        self._tables: dict[tuple[str, str, int, int], SamplerTable] = {}
        self._followable: dict[str, tuple[str, ...]] = {}
        # Compiling is thousands of tiny operators, each of which gives up the interpreter: threads that compile at once
        # take three times as long, and hold up the denoising thread all the while.
        self._lock = threading.Lock()

    def table(self, sampler: str, schedule: str, num_inference_steps: int, skipped: int = 0) -> SamplerTable:
        """The table of `sampler` following `schedule` over `num_inference_steps`, of which the first are `skipped`.

        Raises:
            InvalidRequest: a sampler or schedule that the checkpoint cannot follow, or a step count that it refuses.
        """
        key = (sampler, schedule, num_inference_steps, skipped)
        known = self._tables.get(key)
        if known is not None:
            return known
        if sampler not in SAMPLERS or schedule not in SAMPLERS[sampler].allowed:
            self._check_followable(sampler, schedule)
        try:
            with self._lock:
                if key not in self._tables:
                    self._tables[key] = self._compile(*key)
                table = self._tables[key]
                while sum(one.num_bytes for one in self._tables.values()) > self._max_bytes:
                    del self._tables[next(iter(self._tables))]
                return table
        except InvalidRequest:
            self._check_followable(sampler, schedule)
            raise

    def is_compiled(self, sampler: str, schedule: str, num_inference_steps: int, skipped: int = 0) -> bool:
        """Whether `table` would answer at once."""
        return (sampler, schedule, num_inference_steps, skipped) in self._tables

    def followable_samplers(self) -> dict[str, tuple[str, ...]]:
        """The samplers that this checkpoint's scheduler config can follow, each with its schedules.

        Found by trying, which takes about a quarter of a second the first time.

        Raises:
            ModelLoadError: there is none.
        """
        with self._lock:
            if not self._followable:
                self._followable = self._try_samplers()
            return dict(self._followable)

    def _try_samplers(self) -> dict[str, tuple[str, ...]]:
        reasons = {name: self._reason_against(name) for name in SAMPLERS}
        followable = {
            name: ("automatic", *(one for one in SAMPLERS[name].schedules if self._can_space(name, one)))
            for name, reason in reasons.items()
            if reason is None
        }
        if not followable:
            sampler, reason = next(iter(reasons.items()))
            raise ModelLoadError(f"scheduler/scheduler_config.json: no sampler can follow it; {sampler} {reason}")
        return followable

    def _reason_against(self, sampler: str) -> str | None:
        """Why the sampler cannot follow the checkpoint; None where it can."""
        reason = None
        for steps in PROBES:
            try:
                self._compile(sampler, "automatic", steps)
            except InvalidRequest as error:
                reason = reason or error.limit
            else:
                return None
        return reason

    def _can_space(self, sampler: str, schedule: str) -> bool:
        """Whether a sampler that can follow the checkpoint can also follow it with this schedule.

        Only the constructor and `set_timesteps` read a schedule's options, so no table is compiled.
        """
        try:
            new_quick_scheduler(self._scheduler_config, sampler, schedule).set_timesteps(PROBES[0])
        except (NotImplementedError, ValueError):
            return False
        return True

    def _compile(self, sampler: str, schedule: str, num_inference_steps: int, skipped: int = 0) -> SamplerTable:
        try:
            scheduler = new_quick_scheduler(self._scheduler_config, sampler, schedule)
        except (NotImplementedError, ValueError) as error:
            raise InvalidRequest("sampler", sampler, f"must suit the checkpoint ({error})") from error
        return compile_table(scheduler, num_inference_steps, f"sampler {sampler} with scheduler {schedule}", skipped)

    def _check_followable(self, sampler: str, schedule: str) -> None:
        """Raise InvalidRequest with what the checkpoint can follow, where it cannot follow these."""
        samplers = self.followable_samplers()
        if sampler not in samplers:
            raise InvalidRequest("sampler", sampler, f"must be one of {', '.join(samplers)} for this checkpoint")
        if schedule not in samplers[sampler]:
            allowed = ", ".join(samplers[sampler])
            raise InvalidRequest("scheduler", schedule, f"must be one of {allowed} for sampler {sampler}")
