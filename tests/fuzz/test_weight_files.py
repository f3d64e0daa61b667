"""Whatever a LoRA's, a checkpoint's or an embedding's file holds: it is loaded, or refused with an error of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import nn

from serve_app.errors import ModelLoadError
from serve_app.models.loading.single_file import SingleFile, load_single_vae
from serve_app.models.lora.lora_file import read_lora
from serve_app.models.text.textual_inversion import load_embeddings
from tests.compare_images import load_pipeline
from tests.fuzz.mutations import CHANGES, change
from tests.fuzz.parsers import answers
from tests.models.lora_files import save_lora

SHAPES = st.lists(st.integers(0, 5), max_size=4)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64])
TENSORS = st.builds(lambda shape, dtype: torch.zeros(shape, dtype=dtype), SHAPES, DTYPES)
PREFIXES = [
    "unet.",
    "text_encoder.",
    "lora_unet_",
    "lora_te_",
    "lora_te1_",
    "transformer.",
    "unet.unet.",
    "base_model.model.",
]
LAYERS = [
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks_0_attentions_0_proj_in",
    "mid_block",
    "",
    "0",
    "conv_in",
    "a.b",
]
LAYERS += [
    "input_blocks_1_1_proj_in",
    "output_blocks_0",
    "middle_block_1",
    "text_model_encoder_layers_0_mlp_fc1",
    "time_embed",
]
ENDS = [
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_down.weight",
    ".lora_up.weight",
    ".lora.down.weight",
    ".lora.up.weight",
]
ENDS += [
    ".alpha",
    ".dora_scale",
    ".lora_magnitude_vector",
    ".weight",
    ".diff",
    ".diff_b",
    ".processor.to_q_lora.down.weight",
    "",
]
LORA_KEYS = st.builds(lambda *parts: "".join(parts), *map(st.sampled_from, (PREFIXES, LAYERS, ENDS))) | st.text(
    max_size=5
)
CHECKPOINT_KEYS = st.sampled_from(
    [
        "model.diffusion_model.input_blocks.0.0.weight",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "cond_stage_model.model.ln_final.weight",
        "conditioner.embedders.1.model.ln_final.weight",
        "first_stage_model.encoder.conv_in.weight",
        "first_stage_model.decoder.conv_in.weight",
        "clip_l",
        "clip_g",
        "emb_params",
    ]
)
WEIGHTS = st.dictionaries(LORA_KEYS | CHECKPOINT_KEYS, TENSORS, max_size=5)


@pytest.fixture(scope="module")
def parts(tiny_sd: Path) -> dict[str, Any]:
    pipeline = load_pipeline(tiny_sd)
    return {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder, "tokenizer": pipeline.tokenizer}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "weights.safetensors"


@pytest.fixture(scope="module")
def valid(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """A LoRA in two layouts."""
    folder = tmp_path_factory.mktemp("loras")
    return {
        layout: load_file(save_lora(tiny_sd, folder / f"{layout}.safetensors", 0, layout))
        for layout in ("diffusers", "kohya")
    }


def load(file: Path, parts: Mapping[str, Any]) -> None:
    """Load the file as everything that it could be."""
    modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    answers(read_lora, "a", file, modules, torch.device("cpu"), torch.float32)
    answers(SingleFile, file, None, None)


@given(WEIGHTS)
def test_any_weights(file: Path, parts: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    file.write_bytes(save(weights))
    load(file, parts)
    answers(load_embeddings, {"a": str(file)}, [(parts["tokenizer"], parts["text_encoder"])])


@given(st.binary(max_size=60), CHANGES)
def test_any_bytes(
    file: Path, parts: dict[str, Any], start: bytes, changes: list[tuple[float, int, bytes, bool]]
) -> None:
    for content in (start, change(save({"clip_l": torch.zeros(1, 32)}, {"a": "b"}), changes)):
        file.write_bytes(content)
        load(file, parts)


@given(st.sampled_from(["diffusers", "kohya"]), st.integers(0), WEIGHTS, st.booleans())
def test_a_lora_with_odd_weights(
    file: Path,
    parts: dict[str, Any],
    valid: dict[str, dict[str, torch.Tensor]],
    layout: str,
    which: int,
    weights: dict[str, torch.Tensor],
    replaces: bool,
) -> None:
    state = dict(valid[layout])
    names = list(state)
    for offset, (name, tensor) in enumerate(weights.items()):
        state[names[(which + offset) % len(names)] if replaces else name] = tensor
    file.write_bytes(save(state))
    load(file, parts)


@pytest.mark.parametrize(("rank", "side"), [(0, 1), (1, 3)], ids=["rank 0", "3x3"])
def test_a_lora_that_no_layer_can_use(file: Path, parts: dict[str, Any], rank: int, side: int) -> None:
    wide = parts["unet"].conv_in.weight
    up = torch.zeros(wide.shape[0], rank, side, side)
    file.write_bytes(
        save({"unet.conv_in.lora.down.weight": wide[:1].repeat(rank, 1, 1, 1), "unet.conv_in.lora.up.weight": up})
    )
    with pytest.raises(ModelLoadError, match="does not fit this model"):
        read_lora("a", file, {"unet": parts["unet"]}, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(8), b"\xff" * 8 + b"{}"], ids=repr)
def test_a_vae_that_is_none(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert not answers(load_single_vae, file, torch.float32)
