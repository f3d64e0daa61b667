"""Where a model's files are: in the package, on this disk, or on the hub. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from serve_app.builtin import BUILTIN_MODELS
from serve_app.config import ModelConfig, SafetyConfig
from serve_app.config.hub import is_local
from serve_app.errors import ModelLoadError

PART_FILES = ("*.json", "*.safetensors")
CHECKER_FILES = (
    *("config.json", "preprocessor_config.json", "model.safetensors"),
    *("safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json"),
)
"""Of a checkpoint only these, which are a tenth of it."""


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
        raise _unreachable("source", config.source, config.revision, error) from error


def find_local(key: str, source: str) -> Path:
    """A directory or `.safetensors` file on this disk. Raises ModelLoadError; `key` is the config key it names."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if not path.exists():
        raise ModelLoadError(f"{key}: {path} does not exist: give a diffusers directory or a .safetensors file")
    return find_weights(key, source)


def find_weights(key: str, source: str) -> Path:
    """A `.safetensors` file on this disk. Raises ModelLoadError; `key` is the config key it names."""
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if path.exists():
        raise ModelLoadError(f"{key}: {path} must be a .safetensors file: convert it, as other formats could run code")
    raise ModelLoadError(f"{key}: {path} does not exist; it must be a .safetensors file")


def find_part(key: str, source: str, revision: str | None, files: Sequence[str] = PART_FILES) -> Path:
    """The directory or file of one part, such as a VAE. Raises ModelLoadError.

    Args:
        key: the config key that errors name.
        source: a path or a hub id.
        revision: the hub's branch, tag or commit; its main branch by default.
        files: patterns of what is fetched from the hub.
    """
    if is_local(source):
        return find_local(key, source)
    from huggingface_hub import snapshot_download  # here because only the hub needs it

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        raise _unreachable(key, source, revision, error) from error


def find_checker(config: SafetyConfig) -> Path:
    """The directory of the safety checker, or of the checkpoint that holds it. Raises ModelLoadError."""
    return find_part("safety.checker", config.checker, config.revision, CHECKER_FILES)


def _unreachable(key: str, source: str, revision: str | None, error: Exception) -> ModelLoadError:
    wanted = f"{source} at {revision}" if revision else source
    return ModelLoadError(
        f"{key}: {wanted} cannot be fetched from the hub ({error}): check the id, the revision and the network, "
        "or give a local path that starts with / or ./"
    )
