"""Which errors mean that the device is broken for good, or that its memory is full. All others belong to a request."""

from collections.abc import Iterator
from enum import Enum

import torch

from serve_app.errors import DarkroomError, DeviceLost


class DeviceFault(Enum):
    """LOST: no later call to the device will work. OUT_OF_MEMORY: a smaller one will."""

    LOST = "lost"
    OUT_OF_MEMORY = "out of memory"


FULL = (
    "out of memory",
    "can't allocate memory",
    "status_alloc_failed",
    "cublas_status_not_initialized",  # its handle did not fit into what was left
)
OF_ONE_CALL = (
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "named symbol not found",
    "no kernel image is available",
    "not supported",
    "not_supported",
    "status_invalid_value",
    "status_arch_mismatch",
    "too many resources requested",
)
"""Errors of CUDA that leave the device as it was."""
STICKY = (
    "cuda error",
    "cuda driver error",
    "hip error",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ecc error",
    "status_execution_failed",
    "status_mapping_error",
)


def fault_of(error: BaseException) -> DeviceFault | None:
    """What the error, or one that it came from, says of the device; None where it belongs to a request."""
    found = {_own_fault(one) for one in _chain(error)}
    return next((fault for fault in (DeviceFault.LOST, DeviceFault.OUT_OF_MEMORY) if fault in found), None)


def _own_fault(error: BaseException) -> DeviceFault | None:
    if isinstance(error, DeviceLost):
        return DeviceFault.LOST
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return DeviceFault.OUT_OF_MEMORY
    if not isinstance(error, RuntimeError):
        return None
    text = str(error).lower()
    if any(part in text for part in FULL):
        return DeviceFault.OUT_OF_MEMORY
    if any(part in text for part in OF_ONE_CALL):
        return None
    sticky = isinstance(error, torch.AcceleratorError) or any(part in text for part in STICKY)
    return DeviceFault.LOST if sticky else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those it came from. What an error of our own came from has been judged already."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        if isinstance(one, DarkroomError):
            return
        seen.add(id(one))
        one = one.__cause__ or one.__context__
