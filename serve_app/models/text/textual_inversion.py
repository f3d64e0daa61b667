"""Textual inversion: names that prompts may use, each for a few learned token embeddings.

Gal et al., An Image is Worth One Word (arXiv 2208.01618).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from safetensors.torch import load_file

from serve_app.errors import ModelLoadError
from serve_app.models.broken_weights import BROKEN_WEIGHTS

SDXL_KEYS = ("clip_l", "clip_g")
Encoder = tuple[Any, Any]
"""A CLIP tokenizer and the text encoder it belongs to."""


class _Loader(TextualInversionLoaderMixin):
    """diffusers' loader, without a pipeline around it."""

    hf_device_map = None
    components: Mapping[str, object] = MappingProxyType({})


def load_embeddings(files: Mapping[str, Path], encoders: Sequence[Encoder]) -> None:
    """Add the names in `files` to every encoder. Raises ModelLoadError.

    A file holds one tensor (`emb_params`, or any name) for one encoder, or `clip_l` and `clip_g` for SDXL's two.
    """
    for name, path in files.items():
        try:
            tensors = load_file(path)
            vectors = [tensors[key] for key in SDXL_KEYS] if len(encoders) > 1 else [next(iter(tensors.values()))]
            for (tokenizer, text_encoder), embedding in zip(encoders, vectors, strict=True):
                _add_name(name, embedding, tokenizer, text_encoder)
        except BROKEN_WEIGHTS as error:
            raise ModelLoadError(f"embeddings.{name}: {path} does not fit this model ({error})") from error


def _add_name(name: str, embedding: torch.Tensor, tokenizer: Any, text_encoder: Any) -> None:
    vectors = embedding if embedding.dim() == 2 else embedding[None]
    if vectors.shape[1] != text_encoder.get_input_embeddings().weight.shape[1]:
        width = text_encoder.get_input_embeddings().weight.shape[1]
        raise ValueError(
            f"its vectors must be {width} wide, as the text encoder's are, and they are {vectors.shape[1]} wide"
        )
    state = {name: vectors.to(text_encoder.dtype)}
    _Loader().load_textual_inversion(state, token=name, tokenizer=tokenizer, text_encoder=text_encoder)
    text_encoder.requires_grad_(False)


def expand_names(prompt: str, tokenizer: Any) -> str:
    """Replace each name of several vectors by all its tokens (`name name_1 name_2`)."""
    return str(_Loader().maybe_convert_prompt(prompt, tokenizer))
