"""From a tiny diffusers checkpoint to one `.safetensors` file in the original Stable Diffusion layout."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.compare_images import load_pipeline

Weights = dict[str, torch.Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE = {
    "conv_shortcut": "nin_shortcut",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def save_single_file(folder: Path, file: Path, vae: bool = True) -> Path:
    """The checkpoint in `folder` as `file`."""
    pipeline = load_pipeline(folder)
    weights = {f"model.diffusion_model.{key}": tensor for key, tensor in unet_weights(pipeline.unet).items()}
    if vae:
        weights |= {f"first_stage_model.{key}": tensor for key, tensor in vae_weights(pipeline.vae).items()}
    clip = {f"transformer.text_model.{key}": tensor for key, tensor in pipeline.text_encoder.state_dict().items()}
    if hasattr(pipeline, "text_encoder_2"):
        weights |= {f"conditioner.embedders.0.{key}": tensor for key, tensor in clip.items()}
        second = open_clip_weights(pipeline.text_encoder_2)
        weights |= {f"conditioner.embedders.1.model.{key}": tensor for key, tensor in second.items()}
    else:
        weights |= {f"cond_stage_model.{key}": tensor for key, tensor in clip.items()}
    save_file({key: tensor.contiguous().clone() for key, tensor in weights.items()}, file)
    return file


def rename(state: Weights, names: dict[str, str]) -> Weights:
    """Replace parts of keys."""
    renamed: Weights = {}
    for key, tensor in state.items():
        for theirs, ours in names.items():
            key = key.replace(f"{theirs}.", f"{ours}.")
        renamed[key] = tensor
    return renamed


def under(prefix: str, module: Any, names: dict[str, str] | None = None) -> Weights:
    """A module's weights below `prefix`."""
    return {f"{prefix}.{key}": tensor for key, tensor in rename(module.state_dict(), names or {}).items()}


def unet_weights(unet: Any) -> Weights:
    """Blocks in one numbered line down and one up."""
    found = under("input_blocks.0.0", unet.conv_in) | under("out.0", unet.conv_norm_out) | under("out.2", unet.conv_out)
    found |= under("time_embed.0", unet.time_embedding.linear_1) | under("time_embed.2", unet.time_embedding.linear_2)
    if hasattr(unet, "add_embedding"):
        found |= under("label_emb.0.0", unet.add_embedding.linear_1) | under(
            "label_emb.0.2", unet.add_embedding.linear_2
        )
    number = 1
    for block in unet.down_blocks:
        for index, resnet in enumerate(block.resnets):
            found |= block_weights(f"input_blocks.{number}", block, index, resnet)
            number += 1
        for sampler in block.downsamplers or ():
            found |= under(f"input_blocks.{number}.0.op", sampler.conv)
            number += 1
    mid = unet.mid_block
    found |= under("middle_block.0", mid.resnets[0], RESNET) | under("middle_block.2", mid.resnets[1], RESNET)
    found |= under("middle_block.1", mid.attentions[0])
    number = 0
    for block in unet.up_blocks:
        for index, resnet in enumerate(block.resnets):
            found |= block_weights(f"output_blocks.{number}", block, index, resnet)
            if block.upsamplers and index == len(block.resnets) - 1:
                place = 2 if hasattr(block, "attentions") else 1
                found |= under(f"output_blocks.{number}.{place}.conv", block.upsamplers[0].conv)
            number += 1
    return found


def block_weights(prefix: str, block: Any, index: int, resnet: Any) -> Weights:
    """A resnet and the attention behind it, if any."""
    found = under(f"{prefix}.0", resnet, RESNET)
    if hasattr(block, "attentions"):
        found |= under(f"{prefix}.1", block.attentions[index])
    return found


def vae_weights(vae: Any) -> Weights:
    """Levels numbered by resolution, upwards in both halves."""
    found = under("quant_conv", vae.quant_conv) | under("post_quant_conv", vae.post_quant_conv)
    for half, blocks, way in (("encoder", vae.encoder.down_blocks, "down"), ("decoder", vae.decoder.up_blocks, "up")):
        module = getattr(vae, half)
        found |= under(f"{half}.conv_in", module.conv_in) | under(f"{half}.conv_out", module.conv_out)
        found |= under(f"{half}.norm_out", module.conv_norm_out)
        for place, block in enumerate(blocks):
            level = place if way == "down" else len(blocks) - 1 - place
            for index, resnet in enumerate(block.resnets):
                found |= under(f"{half}.{way}.{level}.block.{index}", resnet, VAE)
            for sampler in (block.downsamplers if way == "down" else block.upsamplers) or ():
                found |= under(f"{half}.{way}.{level}.{way}sample.conv", sampler.conv)
        mid = module.mid_block
        found |= under(f"{half}.mid.block_1", mid.resnets[0], VAE) | under(f"{half}.mid.block_2", mid.resnets[1], VAE)
        attention = under(f"{half}.mid.attn_1", mid.attentions[0], VAE)
        found |= {key: tensor[:, :, None, None] if tensor.dim() == 2 else tensor for key, tensor in attention.items()}
    return found


def open_clip_weights(encoder: Any) -> Weights:
    """open_clip's names: queries, keys and values in one tensor."""
    text = encoder.text_model
    found = {
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        "text_projection": encoder.text_projection.weight.T,
        **under("ln_final", text.final_layer_norm),
    }
    for index, layer in enumerate(text.encoder.layers):
        prefix = f"transformer.resblocks.{index}"
        state = rename(layer.state_dict(), OPEN_CLIP)
        found |= {f"{prefix}.{key}": tensor for key, tensor in state.items() if not key.startswith("self_attn.")}
        for kind in ("weight", "bias"):
            parts = [getattr(getattr(layer.self_attn, f"{name}_proj"), kind) for name in "qkv"]
            found[f"{prefix}.attn.in_proj_{kind}"] = torch.cat(parts)
    return found
