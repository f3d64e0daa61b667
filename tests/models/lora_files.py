"""Random LoRAs for the tiny checkpoints, in diffusers' and kohya's layouts."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from tests.compare_images import load_pipeline

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.0.proj"]
TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1"]


def save_lora(model: Path, file: Path, seed: int, layout: str, rank: int = 4) -> Path:
    """A LoRA over attention, projections and text encoders, alpha half the rank, strong enough to change the image."""
    torch.manual_seed(seed)
    pipeline = load_pipeline(model)
    unet = _adapted(pipeline.unet, LoraConfig(r=rank, lora_alpha=rank // 2, target_modules=[*TARGETS, "conv1"]))
    texts: dict[str, Any] = {}
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(pipeline, name, None) is not None:
            config = LoraConfig(r=rank, lora_alpha=rank // 2, target_modules=TEXT_TARGETS)
            texts[name] = _adapted(getattr(pipeline, name), config)
    if layout == "diffusers":
        _save_as_diffusers(pipeline, unet, texts, file)
    else:
        _save_as_kohya(unet, texts, file, rank // 2)
    return file


def _adapted(module: Any, config: LoraConfig) -> dict[str, torch.Tensor]:
    module.add_adapter(config)
    state = get_peft_model_state_dict(module)
    return {key: torch.randn_like(tensor) * 0.3 for key, tensor in state.items()}


def _save_as_diffusers(pipeline: Any, unet: Any, texts: dict[str, Any], file: Path) -> None:
    layers = {f"{name}_lora_layers": convert_state_dict_to_diffusers(state) for name, state in texts.items()}
    kind = StableDiffusionXLPipeline if len(texts) == 2 else StableDiffusionPipeline
    kind.save_lora_weights(file.parent, unet_lora_layers=unet, weight_name=file.name, **layers)


def _save_as_kohya(unet: Any, texts: dict[str, Any], file: Path, alpha: int) -> None:
    """kohya's own names: dots to underscores, `lora_down` and `lora_up`, an alpha for each layer."""
    kohya: dict[str, torch.Tensor] = {}
    prefixes = {"text_encoder": "lora_te1" if len(texts) == 2 else "lora_te", "text_encoder_2": "lora_te2"}
    parts = {"lora_unet": unet, **{prefixes[name]: state for name, state in texts.items()}}
    for prefix, state in parts.items():
        for key, tensor in state.items():
            layer, half = key.removesuffix(".weight").rsplit(".lora_", 1)
            if prefix != "lora_unet" and not layer.startswith("text_model."):
                layer = f"text_model.{layer}"
            stem = f"{prefix}_{layer.replace('.', '_')}"
            kohya[f"{stem}.lora_{'down' if half == 'A' else 'up'}.weight"] = tensor.contiguous()
            kohya[f"{stem}.alpha"] = torch.tensor(float(alpha))
    save_file(kohya, file)
