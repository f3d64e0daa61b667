"""A checkpoint as a family sees it: its parts by name, loaded onto the device."""

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
from serve_app.models.loading.diffusers_directory import load_part
from serve_app.models.loading.single_file import load_single_vae
from serve_app.models.loading.sources import find_part, find_weights
from serve_app.models.lora.lora_file import read_lora
from serve_app.models.lora.lora_store import LoraStore
from serve_app.models.text.textual_inversion import Encoder, load_embeddings


class PartSource(Protocol):
    """A checkpoint's files, in some layout."""

    def index(self) -> Mapping[str, Any]:
        """The content of `model_index.json`."""
        ...

    def scheduler_config(self) -> Mapping[str, object]:
        """The content of `scheduler/scheduler_config.json`."""
        ...

    def load(self, part: Any, name: str, dtype: torch.dtype) -> Any:
        """The module `name`, of class `part`. Raises ModelLoadError."""
        ...

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """The CLIP tokenizer `name`. Raises ModelLoadError."""
        ...

    def has(self, name: str) -> bool:
        """Whether the files include this part."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files, and how the model's config wants them loaded."""

    source: PartSource
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype

    def index(self) -> Mapping[str, Any]:
        """The content of `model_index.json`."""
        return self.source.index()

    def scheduler_config(self) -> Mapping[str, object]:
        """The content of `scheduler/scheduler_config.json`; the config's `prediction_type` replaces its own."""
        found = self.source.scheduler_config()
        stated = self.config.prediction_type
        return found if stated is None else {**found, "prediction_type": stated}

    def load(self, part: Any, name: str) -> Any:
        """The module `name`, of class `part`, in eval mode on the device. Raises ModelLoadError."""
        return self._place(self.source.load(part, name, self.dtype))

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """The CLIP tokenizer `name`. Raises ModelLoadError."""
        return self.source.load_tokenizer(name)

    def load_autoencoder(self) -> Autoencoder:
        """The VAE that `vae:` names, else the checkpoint's own. It runs in float32 where float16 overflows."""
        if self.config.vae is not None:
            path = find_part("vae", self.config.vae, self.config.vae_revision)
            vae = self._place(load_vae(path, self.dtype))
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
        """The executor that `executor:` names, for `unet`."""
        return choose_executor(self.config.executor, unet, count_cores(self.config.cpu_threads))

    def load_loras(self, parts: Mapping[str, Any]) -> LoraStore:
        """The configured LoRAs, each checked against the model's `parts`. Raises ModelLoadError."""
        paths = {name: find_weights(f"loras.{name}", path) for name, path in self.config.loras.items()}
        return LoraStore(
            read=lambda name: read_lora(name, paths[name], parts, self.device, self.dtype),
            names=tuple(paths),
            max_bytes=self.config.lora_cache_mb * 2**20,
        )

    def load_embeddings(self, *encoders: Encoder) -> None:
        """Add the configured textual inversions to the text encoders. Raises ModelLoadError."""
        files = {name: find_weights(f"embeddings.{name}", path) for name, path in self.config.embeddings.items()}
        load_embeddings(files, encoders)

    def _place(self, module: Any) -> Any:
        layout = torch.channels_last if self.config.channels_last else torch.preserve_format
        return module.to(self.device, memory_format=layout).eval().requires_grad_(False)


def load_vae(path: Path, dtype: torch.dtype) -> Any:
    """A VAE from a diffusers directory, or from a single file in the original layout. Raises ModelLoadError."""
    if path.is_dir():
        return load_part(AutoencoderKL, path, dtype, None, True)
    return load_single_vae(path, dtype)
