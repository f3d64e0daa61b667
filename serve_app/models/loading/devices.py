"""The device and the precision that a model runs in."""

import torch

from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU. Raises ModelLoadError where a named device does not exist."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[name]:
        usable = ", ".join(kind for kind, there in available.items() if there)
        raise ModelLoadError(f"device: torch finds no {name} device here; use one of auto, {usable}")
    return torch.device(name)


def choose_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """`auto` is float16 on CUDA, float32 elsewhere."""
    return DTYPES.get(config.dtype, torch.float16 if device.type == "cuda" else torch.float32)
