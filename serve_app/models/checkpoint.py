"""A checkpoint directory in diffusers' layout: found, checked, and loaded part by part. Safetensors only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTokenizer

from serve_app.errors import ModelLoadError

PICKLED = (".bin", ".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Checkpoint:
    """A directory that holds `model_index.json`, and how its parts are to be loaded."""

    folder: Path
    device: torch.device
    dtype: torch.dtype
    variant: str | None = None
    allow_pickle: bool = False

    def index(self) -> dict[str, Any]:
        """`model_index.json`."""
        return self._read_json(self.folder / "model_index.json")

    def scheduler_config(self) -> Mapping[str, object]:
        """`scheduler/scheduler_config.json`."""
        return self._read_json(self.folder / "scheduler" / "scheduler_config.json")

    def load(self, part: Any, name: str) -> Any:
        """One part, in eval mode on the device; refuses pickled weights unless allowed."""
        folder = self.folder / name
        if not folder.is_dir():
            raise ModelLoadError(f"{folder} is missing: a checkpoint of this kind needs a {name}/ directory")
        self._check_weights(folder)
        safetensors = None if self.allow_pickle else True
        try:
            module = part.from_pretrained(
                folder, torch_dtype=self.dtype, variant=self.variant, use_safetensors=safetensors, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{folder} cannot be loaded ({error}): download or export it again") from error
        return module.to(self.device).eval().requires_grad_(False)

    def load_vae(self) -> AutoencoderKL:
        """The VAE; in float32 where the checkpoint says half precision overflows."""
        vae: AutoencoderKL = self.load(AutoencoderKL, "vae")
        if self.dtype == torch.float16 and vae.config["force_upcast"]:
            vae.float()
        return vae

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """A CLIP tokenizer."""
        try:
            return CLIPTokenizer.from_pretrained(self.folder / name, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelLoadError(f"{self.folder / name} holds no CLIP tokenizer ({error})") from error

    def require_text_to_image(self, unet: UNet2DConditionModel) -> None:
        """Refuse UNets that need inputs a plain text-to-image request does not have."""
        config = unet.config
        if config["in_channels"] != config["out_channels"]:
            raise ModelLoadError(
                f"{self.folder}/unet takes {config['in_channels']} channels: it is no text-to-image UNet"
            )
        if config["time_cond_proj_dim"] is not None:
            raise ModelLoadError(f"{self.folder}/unet wants a guidance embedding (time_cond_proj_dim), not supported")

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

    def _read_json(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise ModelLoadError(f"{path} is missing: {self.folder} is no diffusers directory")
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise ModelLoadError(f"{path} is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise ModelLoadError(f"{path} holds no JSON object")
        return found
