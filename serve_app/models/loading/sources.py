"""Where a model's files are: in the package, on this disk, or on the hub. Imports no torch."""

from pathlib import Path

from serve_app.builtin import BUILTIN_MODELS
from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError


def find_checkpoint(config: ModelConfig) -> Path:
    """The checkpoint's directory or `.safetensors` file. Raises ModelLoadError, which names the source and the fix."""
    kind, _, name = config.source.partition(":")
    if kind == "builtin":
        if name not in BUILTIN_MODELS:
            known = ", ".join(f"builtin:{name}" for name in BUILTIN_MODELS)
            raise ModelLoadError(f"source: must be one of {known}, a path or a hub id, got {config.source}")
        return BUILTIN_MODELS[name]
    if is_local(config.source):
        return find_local("source", config.source)
    from diffusers import DiffusionPipeline  # here because it takes seconds to import, and only the hub needs it

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
    """Whether a source is a path, not a hub id."""
    return source.startswith((".", "/", "~"))


def find_local(key: str, source: str) -> Path:
    """A directory or `.safetensors` file on this disk. Raises ModelLoadError; `key` is the config key it names."""
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".safetensors"):
        return path
    if path.is_file():
        raise ModelLoadError(f"{key}: {path} must be a .safetensors file: convert it, as other formats could run code")
    raise ModelLoadError(f"{key}: {path} does not exist: give a diffusers directory or a .safetensors file")


def find_part(key: str, source: str) -> Path:
    """The directory or file of one part, such as a VAE or the safety checker. Raises ModelLoadError."""
    if is_local(source):
        return find_local(key, source)
    from huggingface_hub import snapshot_download  # here because only the hub needs it

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise _unreachable(key, source, error) from error


def _unreachable(key: str, source: str, error: Exception) -> ModelLoadError:
    return ModelLoadError(
        f"{key}: {source} cannot be fetched from the hub ({error}): check the id and the network, "
        "or give a local path that starts with / or ./"
    )
