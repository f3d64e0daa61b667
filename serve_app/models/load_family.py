"""From a `ModelConfig` to a loaded family: find the files, read which family they belong to, load it."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch

from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError
from serve_app.models.cpu_threads import count_cores, prepare_cpu
from serve_app.models.loading.checkpoint import Checkpoint, PartSource
from serve_app.models.loading.devices import choose_device, choose_dtype
from serve_app.models.loading.diffusers_directory import DiffusersDirectory
from serve_app.models.loading.single_file import SingleFile
from serve_app.models.loading.sources import find_checkpoint
from serve_app.models.model_family import ModelFamily

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "stable_diffusion": (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "LatentConsistencyModelPipeline",
    ),
    "stable_diffusion_xl": (
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    ),
}
"""A file in families/, to the pipeline classes of `model_index.json` that it serves.

The file is imported only when one of them is loaded; its `load(checkpoint)` returns the `ModelFamily`.
"""


def load_family(config: ModelConfig, gpu_share: float = 1.0) -> ModelFamily:
    """Load the checkpoint that `config` names. Raises ModelLoadError, which names the path and the fix.

    `gpu_share` is the part of a GPU's memory that this process may take.
    """
    device = choose_device(config.device)
    claim_share(config, device, gpu_share)
    dtype = choose_dtype(config, device)
    checkpoint = Checkpoint(source=open_source(config), config=config, device=device, dtype=dtype)
    pipeline = checkpoint.index().get("_class_name")
    for name, pipelines in FAMILIES.items():
        if pipeline in pipelines:
            return import_module(f"serve_app.models.families.{name}").load(checkpoint)
    known = ", ".join(one for pipelines in FAMILIES.values() for one in pipelines)
    raise ModelLoadError(f"{config.source}/model_index.json: _class_name must be one of {known}, got {pipeline!r}")


def open_source(config: ModelConfig) -> PartSource:
    """The checkpoint's files: a diffusers directory or a single file."""
    path = find_checkpoint(config)
    if path.is_dir():
        return DiffusersDirectory(path, config.variant, config.allow_pickle)
    return SingleFile(path, config.family, Path(config.config).expanduser() if config.config else None)


def claim_share(config: ModelConfig, device: torch.device, gpu_share: float) -> None:
    """Keep this process to its share of the GPU's memory, or of the CPU's cores.

    Ray counts fractional GPUs but does not isolate them.
    """
    if device.type == "cuda" and 0 < gpu_share < 1:
        torch.cuda.set_per_process_memory_fraction(gpu_share, device)
    if device.type == "cpu":
        prepare_cpu(count_cores(config.cpu_threads))
