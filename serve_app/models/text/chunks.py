"""Prompts of any length for CLIP text encoders: AUTOMATIC1111's weights, chunks of 75 tokens, joined per row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import CLIPTokenizer

from serve_app.models.model_family import Chunk
from serve_app.models.text.prompt_weights import Part, parse_weights

COMMA_REACH = 20
"""A full chunk ends at a comma at most this many tokens back, as AUTOMATIC1111's does."""


def tokenize(tokenizer: CLIPTokenizer, text: str, weighted: bool) -> list[Chunk]:
    """`text` in chunks, at least one; `weighted` reads AUTOMATIC1111's syntax and ends chunks where it does."""
    room = tokenizer.model_max_length - 2
    pieces: list[list[tuple[int, float]]] = [[]]
    comma: Any = tokenizer.convert_tokens_to_ids(",</w>") if weighted else None
    for part in parse_weights(text) if weighted else [Part(text)]:
        if part.breaks:
            pieces.append([])
            continue
        for token in tokenizer(part.text, add_special_tokens=False, verbose=False).input_ids:
            if len(pieces[-1]) == room:
                pieces.append(_carry_over(pieces[-1], comma))
            pieces[-1].append((token, part.weight))
    return [_fill(tokenizer, piece) for piece in pieces]


def _carry_over(piece: list[tuple[int, float]], comma: int | None) -> list[tuple[int, float]]:
    """Move the tokens after a full chunk's last comma to the next chunk, where the comma is near the end."""
    for kept in range(len(piece), len(piece) - COMMA_REACH, -1):
        if piece[kept - 1][0] == comma:
            carried = piece[kept:]
            del piece[kept:]
            return carried
    return []


def _fill(tokenizer: CLIPTokenizer, piece: list[tuple[int, float]]) -> Chunk:
    special: Any = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    start, end, pad = special
    empty = tokenizer.model_max_length - 2 - len(piece)
    ids = [start, *(token for token, _ in piece), end] + [pad] * empty
    return Chunk(ids=ids, weights=[1.0, *(weight for _, weight in piece), 1.0] + [1.0] * empty)


def apply_weights(states: torch.Tensor, chunks: Sequence[Chunk]) -> torch.Tensor:
    """Scale each token's state by its weight and restore each chunk's mean: (chunks, 77, width).

    AUTOMATIC1111's "Original" emphasis, chunk by chunk; chunks of weight 1 are returned unchanged.
    """
    if all(weight == 1 for chunk in chunks for weight in chunk.weights):
        return states
    weights = torch.tensor([chunk.weights for chunk in chunks], device=states.device, dtype=states.dtype)
    scaled = states * weights[:, :, None]
    ratio = states.mean(dim=(1, 2), keepdim=True) / scaled.mean(dim=(1, 2), keepdim=True)
    unweighted = (weights == 1).all(dim=1)[:, None, None]
    return torch.where(unweighted, states, scaled * ratio)


def join_chunks(states: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
    """Encoded chunks (sum of counts, 77, width) back to one (77 * count, width) per prompt."""
    return [chunks.reshape(-1, states.shape[-1]) for chunks in states.split(list(counts))]


def stack_prompts(
    embeds: Sequence[torch.Tensor], padded_tokens: int | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stack (tokens, width) rows, padded to `padded_tokens`: embeddings (rows, T, width) and the mask (rows, T).

    The mask is 1 where a row has tokens. Without `padded_tokens` all rows are of one length, and there is no mask.
    """
    if padded_tokens is None:
        return torch.stack(list(embeds)), None
    stacked = torch.stack([functional.pad(row, (0, 0, 0, padded_tokens - len(row))) for row in embeds])
    lengths = torch.tensor([len(row) for row in embeds])
    mask = (torch.arange(padded_tokens)[None] < lengths[:, None]).to(stacked.dtype)
    return stacked, mask.to(stacked.device, non_blocking=True)
