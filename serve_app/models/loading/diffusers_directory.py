"""A checkpoint in diffusers' directory layout: one folder for each part, and `model_index.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from serve_app.errors import ModelLoadError

PICKLED = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class DiffusersDirectory:
    """A directory that holds `model_index.json`; a `PartSource`."""

    folder: Path
    variant: str | None = None
    allow_pickle: bool = False

    def index(self) -> Mapping[str, Any]:
        """See `PartSource`."""
        return self._read_json(self.folder / "model_index.json")

    def scheduler_config(self) -> Mapping[str, object]:
        """See `PartSource`."""
        return self._read_json(self.folder / "scheduler" / "scheduler_config.json")

    def has(self, name: str) -> bool:
        """See `PartSource`."""
        return (self.folder / name).is_dir()

    def load(self, part: Any, name: str, dtype: torch.dtype) -> Any:
        """See `PartSource`. Refuses pickled weights unless they are allowed."""
        folder = self.folder / name
        if not folder.is_dir():
            raise ModelLoadError(f"{folder} does not exist: a checkpoint of this family needs the directory {name}/")
        self._check_weights(folder)
        return load_part(part, folder, dtype, self.variant, None if self.allow_pickle else True)

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """See `PartSource`."""
        try:
            return CLIPTokenizer.from_pretrained(self.folder / name, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelLoadError(f"{self.folder / name} must hold a CLIP tokenizer ({error})") from error

    def _check_weights(self, folder: Path) -> None:
        files = [path for path in folder.iterdir() if path.is_file()]
        if any(path.suffix == ".safetensors" for path in files):
            return
        pickled = [path.name for path in files if path.suffix in PICKLED]
        if not pickled:
            raise ModelLoadError(f"{folder} holds no weights: it must hold a .safetensors file")
        if not self.allow_pickle:
            raise ModelLoadError(
                f"{folder / pickled[0]} is pickled and could run code: convert it to safetensors, "
                "or set allow_pickle: true for this model if you trust it"
            )

    def _read_json(self, path: Path) -> Mapping[str, Any]:
        if not path.is_file():
            raise ModelLoadError(f"{path} does not exist: {self.folder} must be a diffusers directory")
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ModelLoadError(f"{path} must hold JSON ({error})") from error
        if not isinstance(found, dict):
            raise ModelLoadError(f"{path} must hold a JSON object, got {type(found).__name__}")
        return found


def load_part(part: Any, folder: Path, dtype: torch.dtype, variant: str | None, safetensors: bool | None) -> Any:
    """The module of class `part` in `folder`. Raises ModelLoadError."""
    disable_progress_bar()  # a server writes to a log
    try:
        return part.from_pretrained(
            folder, torch_dtype=dtype, variant=variant, use_safetensors=safetensors, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{folder} cannot be loaded ({error}): download or export it again") from error
