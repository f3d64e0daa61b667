"""From a `ModelConfig` to a loaded family: find the files, read which family they are, load it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from serve_app.builtin import BUILTIN_MODELS
from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError
from serve_app.models.checkpoint import Checkpoint
from serve_app.models.family import ModelFamily
from serve_app.models.host import count_cores, prepare_cpu
from serve_app.models.stable_diffusion import StableDiffusion
from serve_app.models.stable_diffusion_xl import StableDiffusionXL

FAMILIES: Mapping[str, Callable[[Checkpoint], ModelFamily]] = {
    "StableDiffusionPipeline": StableDiffusion.load,
    "StableDiffusionXLPipeline": StableDiffusionXL.load,
}
"""The pipeline class in `model_index.json`, to the family that serves it."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_family(config: ModelConfig) -> ModelFamily:
    """Load the checkpoint that `config` names; raises ModelLoadError naming the path and the fix."""
    device = choose_device(config.device)
    claim_share(config, device)
    half = torch.float16 if device.type == "cuda" else torch.float32
    checkpoint = Checkpoint(
        folder=find_folder(config),
        device=device,
        dtype=DTYPES.get(config.dtype, half),
        variant=config.variant,
        allow_pickle=config.allow_pickle,
    )
    pipeline = checkpoint.index().get("_class_name")
    if pipeline not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelLoadError(f"{checkpoint.folder}/model_index.json: _class_name {pipeline!r} is none of {known}")
    return FAMILIES[str(pipeline)](checkpoint)


def claim_share(config: ModelConfig, device: torch.device) -> None:
    """Keep this process to its share: of the GPU's memory where it has a fraction of one, of the cores on a CPU.

    Fractional GPUs are only counted by the cluster, not isolated.
    """
    if device.type == "cuda" and 0 < config.replicas.num_gpus < 1:
        torch.cuda.set_per_process_memory_fraction(config.replicas.num_gpus, device)
    if device.type == "cpu":
        prepare_cpu(count_cores(config.cpu_threads))


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's, else the CPU; a device that is named must be there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[name]:
        raise ModelLoadError(f"device: {name} was asked for, but torch finds none here")
    return torch.device(name)


def find_folder(config: ModelConfig) -> Path:
    """The checkpoint's directory: built in, on this disk, or fetched from the hub."""
    kind, _, name = config.source.partition(":")
    if kind == "builtin":
        if name not in BUILTIN_MODELS:
            raise ModelLoadError(f"source: {config.source} is none of builtin:{', builtin:'.join(BUILTIN_MODELS)}")
        return BUILTIN_MODELS[name]
    if config.source.startswith((".", "/", "~")):
        folder = Path(config.source).expanduser()
        if not folder.is_dir():
            raise ModelLoadError(f"source: {folder} is no directory: give the path of a diffusers checkpoint")
        return folder
    return _download(config)


def _download(config: ModelConfig) -> Path:
    try:
        return Path(
            DiffusionPipeline.download(
                config.source,
                revision=config.revision,
                variant=config.variant,
                use_safetensors=None if config.allow_pickle else True,
            )
        )
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"source: {config.source} cannot be fetched from the hub ({error}): check the id and the network, "
            "or give a local directory, starting with / or ./"
        ) from error
