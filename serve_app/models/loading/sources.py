"""Where a model's files are: built in, on this disk, or fetched from the hub."""

from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download

from serve_app.builtin import BUILTIN_MODELS
from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError


def find_checkpoint(config: ModelConfig) -> Path:
    """The checkpoint's directory or `.safetensors` file; raises ModelLoadError naming the source and the fix."""
    kind, _, name = config.source.partition(":")
    if kind == "builtin":
        if name not in BUILTIN_MODELS:
            raise ModelLoadError(f"source: {config.source} is none of builtin:{', builtin:'.join(BUILTIN_MODELS)}")
        return BUILTIN_MODELS[name]
    if is_local(config.source):
        return find_local("source", config.source)
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
        raise _unreachable("source", config.source, error) from error


def is_local(source: str) -> bool:
    """Whether a source is a path and no hub id."""
    return source.startswith((".", "/", "~"))


def find_local(key: str, source: str) -> Path:
    """A directory or file on this disk."""
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".safetensors"):
        return path
    if path.is_file():
        raise ModelLoadError(f"{key}: {path} is no .safetensors file: convert it, other formats could run code")
    raise ModelLoadError(f"{key}: {path} is not there: give a diffusers directory or a .safetensors file")


def find_part(key: str, source: str) -> Path:
    """The directory or file of a single part, such as another VAE or the safety checker."""
    if is_local(source):
        return find_local(key, source)
    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise _unreachable(key, source, error) from error


def _unreachable(key: str, source: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"{key}: {source} cannot be fetched from the hub ({error}): check the id and the network, "
        "or give a local path, starting with / or ./"
    )
