"""The boundary at which a failure becomes one request's alone, or the device's."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from serve_app.engine.device_errors import DeviceFault, fault_of
from serve_app.engine.device_turns import DeviceTurns
from serve_app.engine.engine_counters import EngineCounters
from serve_app.errors import DarkroomError, DeviceLost, GenerationFailed

log = logging.getLogger("darkroom.engine")


class WorkItem(Protocol):
    """Something the engine's threads work on."""

    @property
    def pixel_size(self) -> tuple[int, int]:
        """Width and height of its image."""
        ...

    def fail(self, error: DarkroomError) -> None:
        """Give it up."""
        ...


ItemT = TypeVar("ItemT", bound=WorkItem)
Work = Callable[[Sequence[ItemT]], None]


@dataclass(frozen=True)
class _Failure:
    """`error` is for the caller. It has no traceback where memory was full: that would keep the memory in use."""

    error: DarkroomError
    out_of_memory: bool = False


def run_guarded(phase: str, work: Work[ItemT], items: Sequence[ItemT]) -> None:
    """Do `work` on all `items`; if it raises, do it on each item alone and fail those items that still raise.

    One request's error ends neither a thread nor another request. An unexpected error becomes a GenerationFailed that
    names the `phase`. Once this returns, `work` is done for each item, or the item is given up.

    Raises:
        DeviceLost: the device is broken for good. No item is tried again, and none is given up.
    """
    failure = _try(phase, work, items)
    if failure is not None:
        _isolate(failure, items, lambda one: run_guarded(phase, work, one))


class WorkGuard:
    """`run_guarded` for work on the device: what does not fit into its memory is done in smaller parts.

    Args:
        device: whose cached memory is freed then.
        counters: count it.
    """

    def __init__(self, device: torch.device, counters: EngineCounters) -> None:
        self._device = device
        self._counters = counters
        self._turns = DeviceTurns()
        self._counting = threading.Lock()

    def run(
        self,
        phase: str,
        work: Work[ItemT],
        items: Sequence[ItemT],
        shrink: Callable[[Sequence[ItemT]], bool] | None = None,
    ) -> None:
        """See `run_guarded`. Where memory is full, each half of the items is tried; one item, with nothing beside it.

        `shrink` is told which items did not fit. It returns whether the same items would need less memory now.
        """
        with self._turns.share():
            failure = _try(phase, work, items)
        if failure is None:
            return
        if not failure.out_of_memory:
            _isolate(failure, items, lambda one: self.run(phase, work, one, shrink))
            return
        self._note_full_memory()
        needs_less = shrink is not None and shrink(items)
        if len(items) > 1:
            middle = len(items) // 2
            self.run(phase, work, items[:middle], shrink)
            self.run(phase, work, items[middle:], shrink)
        elif needs_less:
            self.run(phase, work, items, shrink)
        else:
            self._run_alone(phase, work, items)

    def _run_alone(self, phase: str, work: Work[ItemT], items: Sequence[ItemT]) -> None:
        """The last try. What the other thread holds while it works may be what is missing."""
        with self._turns.alone():
            self._empty_cache()
            failure = _try(phase, work, items)
        if failure is None:
            return
        error = failure.error
        if failure.out_of_memory:
            self._note_full_memory()
            width, height = items[0].pixel_size
            error = GenerationFailed(f"{width}x{height} pixels do not fit into the device's memory: {error}")
        items[0].fail(error)

    def _note_full_memory(self) -> None:
        with self._counting:
            self._counters.out_of_memory += 1
        self._empty_cache()

    def _empty_cache(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _try(phase: str, work: Work[ItemT], items: Sequence[ItemT]) -> _Failure | None:
    """The only broad `except` of the project. Nothing is tried again inside: the traceback holds what failed."""
    try:
        work(items)
    except Exception as error:
        text = f"{phase} failed: {type(error).__name__}: {error}"
        fault = fault_of(error)
        if fault is DeviceFault.LOST:
            log.critical("%s: the device is lost", phase, exc_info=error)
            raise DeviceLost(text) from error
        if fault is DeviceFault.OUT_OF_MEMORY:
            log.warning("%s did not fit into memory: %s", phase, str(error))  # the error itself holds the memory
            return _Failure(GenerationFailed(text), out_of_memory=True)
        log.warning("%s failed", phase, exc_info=error)
        return _Failure(error if isinstance(error, DarkroomError) else GenerationFailed(text))
    return None


def _isolate(failure: _Failure, items: Sequence[ItemT], run: Callable[[Sequence[ItemT]], None]) -> None:
    if len(items) == 1:
        items[0].fail(failure.error)
        return
    for item in items:
        run([item])
