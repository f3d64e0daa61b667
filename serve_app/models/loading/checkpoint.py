"""A checkpoint as a family sees it: its parts by name, loaded on the device. Safetensors only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from serve_app.config import ModelConfig
from serve_app.errors import ModelLoadError
from serve_app.models.autoencoder import Autoencoder
from serve_app.models.cpu_threads import count_cores
from serve_app.models.denoisers.choose_executor import choose_executor
from serve_app.models.denoisers.executor import Executor
from serve_app.models.loading.single_file import load_single_vae
from serve_app.models.loading.sources import find_part
from serve_app.models.lora.lora_file import read_lora
from serve_app.models.lora.lora_layers import LoraStore
from serve_app.models.text.textual_inversion import Encoder, load_embeddings

PICKLED = (".bin", ".ckpt", ".pt", ".pth")


class PartSource(Protocol):
    """Files in some layout."""

    def index(self) -> Mapping[str, Any]:
        """`model_index.json`."""
        ...

    def scheduler_config(self) -> Mapping[str, object]:
        """`scheduler/scheduler_config.json`."""
        ...

    def load(self, part: Any, name: str, dtype: torch.dtype) -> Any:
        """The module `name` of class `part`."""
        ...

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """A CLIP tokenizer."""
        ...

    def has(self, name: str) -> bool:
        """Whether this part is there."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """Files, and how the model's config wants them loaded."""

    source: PartSource
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype

    def index(self) -> Mapping[str, Any]:
        """`model_index.json`."""
        return self.source.index()

    def scheduler_config(self) -> Mapping[str, object]:
        """`scheduler/scheduler_config.json`, with the config's prediction type where it names one."""
        found = self.source.scheduler_config()
        stated = self.config.prediction_type
        return found if stated is None else {**found, "prediction_type": stated}

    def load(self, part: Any, name: str) -> Any:
        """One part, in eval mode on the device."""
        return self._place(self.source.load(part, name, self.dtype))

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """A CLIP tokenizer."""
        return self.source.load_tokenizer(name)

    def load_autoencoder(self) -> Autoencoder:
        """The checkpoint's VAE or the one that `vae:` names; in float32 where half precision overflows."""
        if self.config.vae is not None:
            vae = self._place(load_vae(find_part("vae", self.config.vae), self.dtype))
        elif self.source.has("vae"):
            vae = self.load(AutoencoderKL, "vae")
        else:
            raise ModelLoadError(
                f"source: {self.config.source} has no VAE: name one with vae:, such as stabilityai/sd-vae-ft-mse"
            )
        if self.dtype == torch.float16 and vae.config["force_upcast"]:
            vae.float()
        return Autoencoder(vae, self.config.vae_tile)

    def choose_executor(self, unet: Any) -> Executor:
        """What runs `unet`, as configured."""
        return choose_executor(self.config.executor, unet, count_cores(self.config.cpu_threads))

    def load_loras(self, parts: Mapping[str, Any]) -> LoraStore:
        """The configured LoRAs, checked against the model's `parts`."""
        paths = {name: Path(path).expanduser() for name, path in self.config.loras.items()}
        return LoraStore(
            lambda name: read_lora(name, paths[name], parts, self.device, self.dtype),
            tuple(paths),
            self.config.lora_cache_mb * 2**20,
        )

    def load_embeddings(self, *encoders: Encoder) -> None:
        """Teach the text encoders the configured textual inversions."""
        load_embeddings(self.config.embeddings, encoders)

    def _place(self, module: Any) -> Any:
        layout = torch.channels_last if self.config.channels_last else torch.preserve_format
        return module.to(self.device, memory_format=layout).eval().requires_grad_(False)


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
        """See `PartSource`. Refuses pickled weights unless allowed."""
        folder = self.folder / name
        if not folder.is_dir():
            raise ModelLoadError(f"{folder} is missing: a checkpoint of this kind needs a {name}/ directory")
        self._check_weights(folder)
        return load_part(part, folder, dtype, self.variant, None if self.allow_pickle else True)

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """See `PartSource`."""
        try:
            return CLIPTokenizer.from_pretrained(self.folder / name, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelLoadError(f"{self.folder / name} holds no CLIP tokenizer ({error})") from error

    def _check_weights(self, folder: Path) -> None:
        files = [path for path in folder.iterdir() if path.is_file()]
        if any(path.suffix == ".safetensors" for path in files):
            return
        pickled = [path.name for path in files if path.suffix in PICKLED]
        if not pickled:
            raise ModelLoadError(f"{folder} holds no weights: expected a .safetensors file")
        if not self.allow_pickle:
            raise ModelLoadError(
                f"{folder / pickled[0]} is pickled and could run code: convert it to safetensors, "
                "or set allow_pickle: true for this model if you trust it"
            )

    def _read_json(self, path: Path) -> Mapping[str, Any]:
        if not path.is_file():
            raise ModelLoadError(f"{path} is missing: {self.folder} is no diffusers directory")
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ModelLoadError(f"{path} is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise ModelLoadError(f"{path} holds no JSON object")
        return found


def load_part(part: Any, folder: Path, dtype: torch.dtype, variant: str | None, safetensors: bool | None) -> Any:
    """One part from its directory; raises ModelLoadError."""
    try:
        return part.from_pretrained(
            folder, torch_dtype=dtype, variant=variant, use_safetensors=safetensors, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{folder} cannot be loaded ({error}): download or export it again") from error


def load_vae(path: Path, dtype: torch.dtype) -> Any:
    """A VAE of its own: a directory, or a file in the original layout."""
    if path.is_dir():
        return load_part(AutoencoderKL, path, dtype, None, True)
    return load_single_vae(path, dtype)
