"""From a `ModelConfig` to a loaded family: find the files, read which family they are, load it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError
from serve_app.models.cpu_threads import count_cores, prepare_cpu
from serve_app.models.families.model_family import ModelFamily
from serve_app.models.families.stable_diffusion import StableDiffusion
from serve_app.models.families.stable_diffusion_xl import StableDiffusionXL
from serve_app.models.loading.checkpoint import Checkpoint, DiffusersDirectory, PartSource
from serve_app.models.loading.single_file import SingleFile
from serve_app.models.loading.sources import find_checkpoint

FAMILIES: Mapping[str, Callable[[Checkpoint], ModelFamily]] = {
    "StableDiffusionPipeline": StableDiffusion.load,
    "StableDiffusionImg2ImgPipeline": StableDiffusion.load,
    "StableDiffusionInpaintPipeline": StableDiffusion.load,
    "LatentConsistencyModelPipeline": StableDiffusion.load,
    "StableDiffusionXLPipeline": StableDiffusionXL.load,
    "StableDiffusionXLImg2ImgPipeline": StableDiffusionXL.load,
    "StableDiffusionXLInpaintPipeline": StableDiffusionXL.load,
}
"""The pipeline class in `model_index.json`, to the family that serves it."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_family(config: ModelConfig, gpu_share: float = 1.0) -> ModelFamily:
    """Load the checkpoint that `config` names; raises ModelLoadError naming the path and the fix.

    `gpu_share` is the part of a GPU's memory that this process may take.
    """
    device = choose_device(config.device)
    claim_share(config, device, gpu_share)
    dtype = choose_dtype(config, device)
    checkpoint = Checkpoint(open_source(config, dtype), config, device, dtype)
    pipeline = checkpoint.index().get("_class_name")
    if pipeline not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelLoadError(f"{config.source}/model_index.json: _class_name {pipeline!r} is none of {known}")
    return FAMILIES[str(pipeline)](checkpoint)


def open_source(config: ModelConfig, dtype: torch.dtype) -> PartSource:
    """The checkpoint's files, in whichever layout."""
    path = find_checkpoint(config)
    if path.is_dir():
        return DiffusersDirectory(path, config.variant, config.allow_pickle)
    return SingleFile(path, dtype, config.family, Path(config.config).expanduser() if config.config else None)


def claim_share(config: ModelConfig, device: torch.device, gpu_share: float) -> None:
    """Keep this process to its share: of the GPU's memory where it has a fraction of one, of the cores on a CPU.

    Fractional GPUs are only counted by the cluster, not isolated.
    """
    if device.type == "cuda" and 0 < gpu_share < 1:
        torch.cuda.set_per_process_memory_fraction(gpu_share, device)
    if device.type == "cpu":
        prepare_cpu(count_cores(config.cpu_threads))


def choose_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """`auto` is half precision on CUDA, single elsewhere."""
    return DTYPES.get(config.dtype, torch.float16 if device.type == "cuda" else torch.float32)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's, else the CPU; a device that is named must be there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[name]:
        raise ModelLoadError(f"device: {name} was asked for, but torch finds none here")
    return torch.device(name)
