"""Which errors end the device, which mean that its memory is full, and which belong to a request."""

import pytest
import torch

from serve_app.engine.device_errors import DeviceFault, fault_of
from serve_app.errors import DeviceLost, GenerationFailed

LOST, FULL = DeviceFault.LOST, DeviceFault.OUT_OF_MEMORY
ADVICE = "\nCUDA kernel errors might be asynchronously reported at some other API call."

TABLE: list[tuple[Exception, DeviceFault | None]] = [
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered" + ADVICE), LOST),
    (torch.AcceleratorError("CUDA error: device-side assert triggered" + ADVICE), LOST),
    (torch.AcceleratorError("CUDA error: unspecified launch failure" + ADVICE), LOST),
    (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered" + ADVICE), LOST),
    (torch.AcceleratorError("CUDA error: misaligned address" + ADVICE), LOST),
    (torch.AcceleratorError("CUDA error: unknown error" + ADVICE), LOST),
    (torch.AcceleratorError("CUDA error: the launch timed out and was terminated"), LOST),
    (torch.AcceleratorError("an error of another accelerator"), LOST),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), LOST),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle, opa)`"), LOST),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), LOST),
    (RuntimeError("cuDNN error: CUDNN_STATUS_MAPPING_ERROR"), LOST),
    (RuntimeError("CUDA driver error: an illegal memory access was encountered"), LOST),
    (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), LOST),
    (RuntimeError("HIP error: the operation cannot be performed in the present state"), LOST),
    (DeviceLost("as told before"), LOST),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), FULL),
    (torch.AcceleratorError("CUDA error: out of memory" + ADVICE), FULL),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), FULL),
    (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), FULL),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), FULL),
    (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), FULL),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4503599627370496 bytes."), FULL),
    (MemoryError(), FULL),
    (torch.AcceleratorError("CUDA error: invalid argument" + ADVICE), None),
    (torch.AcceleratorError("CUDA error: invalid configuration argument" + ADVICE), None),
    (torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device" + ADVICE), None),
    (torch.AcceleratorError("CUDA error: too many resources requested for launch" + ADVICE), None),
    (torch.AcceleratorError("CUDA error: operation not supported" + ADVICE), None),
    (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul(handle)`"), None),
    (RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(handle, opa)`"), None),
    (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), None),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), None),
    (RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376"), None),
    (ValueError("the prompt says: CUDA error: an illegal memory access"), None),
    (KeyError("CUDA out of memory"), None),
    (GenerationFailed("decoding failed: CUDA out of memory"), None),
]


@pytest.mark.parametrize(("error", "fault"), TABLE, ids=lambda one: str(one)[:60])
def test_each_error_is_what_it_is(error: Exception, fault: DeviceFault | None) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize("fault", [LOST, FULL])
def test_what_an_error_came_from_counts(fault: DeviceFault) -> None:
    inner = next(error for error, found in TABLE if found is fault)

    def wrap() -> None:
        try:
            raise inner
        except Exception as error:
            raise ValueError("a mistake in cleaning up") from error

    with pytest.raises(ValueError, match="cleaning up") as caught:
        wrap()
    assert fault_of(caught.value) is fault


def test_a_lost_device_goes_before_full_memory() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory.")
    error.__context__ = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    assert fault_of(error) is LOST
