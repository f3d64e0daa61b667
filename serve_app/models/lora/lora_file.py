"""Read a LoRA's file, in diffusers', PEFT's or kohya's layout, into a `Lora` that fits the model."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from safetensors.torch import load_file
from torch import nn

from serve_app.errors import ModelLoadError
from serve_app.models.broken_weights import BROKEN_WEIGHTS
from serve_app.models.lora.lora_layers import Lora, LowRank, adaptable_layers

HALF = re.compile(r"(.+)\.lora_([AB])\.weight")
RETIRED_PREFIX = ".text_model."
"""Files name the text encoder's layers as transformers 4 named them."""


def read_lora(name: str, path: Path, parts: Mapping[str, nn.Module], device: torch.device, dtype: torch.dtype) -> Lora:
    """Read the file for a model of these `parts` (`unet`, `text_encoder` ...). Raises ModelLoadError."""
    try:
        weights, alphas = _to_peft(load_file(path), parts["unet"])
    except BROKEN_WEIGHTS as error:
        raise ModelLoadError(f"loras.{name}: {path} cannot be read as a LoRA ({error})") from error
    known: dict[str, nn.Linear | nn.Conv2d] = {}
    for part, module in parts.items():
        known |= adaptable_layers(module, part)
    layers: dict[str, LowRank] = {}
    for key, pair in _pair_halves(f"loras.{name}: {path}", weights).items():
        layer = key if key in known else key.replace(RETIRED_PREFIX, ".", 1)
        if layer not in known or set(pair) != {"A", "B"} or not _fits(known[layer], pair["A"], pair["B"]):
            raise ModelLoadError(f"loras.{name}: {path} does not fit this model at {key}")
        scale = alphas.get(key, float(len(pair["A"]))) / len(pair["A"])
        up = (pair["B"].float() * scale).to(device, dtype)
        layers[layer] = LowRank(down=pair["A"].to(device, dtype), up=up)
    return Lora(name=name, layers=layers)


def _pair_halves(file: str, weights: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Each layer's `A` and `B` tensors; `file` is what errors call it."""
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in weights.items():
        match = HALF.fullmatch(key)
        if match is None:
            raise ModelLoadError(f"{file} must hold low-rank updates (lora_A and lora_B) only, and it holds {key}")
        halves.setdefault(match[1], {})[match[2]] = tensor
    return halves


def _to_peft(weights: dict[str, torch.Tensor], unet: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights in any layout, to weights by PEFT's keys and alphas by layer."""
    found, network_alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(weights, unet_config=unet.config)[:2]
    alphas = _rename({key.removesuffix(".alpha"): float(alpha) for key, alpha in (network_alphas or {}).items()})
    return _rename(found), {key.removesuffix(".lora_A.weight"): alpha for key, alpha in alphas.items()}


def _rename(found: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' keys to PEFT's, part by part."""
    split: dict[str, dict[str, Any]] = {}
    for key, value in found.items():
        part, _, rest = key.partition(".")
        split.setdefault(part, {})[rest] = value
    renamed: dict[str, Any] = {}
    for part, state in split.items():
        convert = convert_unet_state_dict_to_peft if part == "unet" else convert_state_dict_to_peft
        renamed |= {f"{part}.{key}": value for key, value in convert(state).items()}
    return renamed


def _fits(layer: nn.Linear | nn.Conv2d, down: torch.Tensor, up: torch.Tensor) -> bool:
    """Whether the shapes fit the layer, with a rank of at least 1; a convolution's `up` is 1 x 1."""
    weight = layer.weight
    if down.dim() != weight.dim() or up.dim() != weight.dim() or not len(down) or up.shape[2:].numel() != 1:
        return False
    return down.shape[1:] == weight.shape[1:] and up.shape[:2] == (weight.shape[0], len(down))
