"""Prompts of any length for CLIP text encoders: 75 tokens a chunk, each chunk encoded alone, joined per row."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import CLIPTokenizer


def tokenize(tokenizer: CLIPTokenizer, text: str) -> list[list[int]]:
    """Token ids of `text` in chunks of `model_max_length`: start, up to 75 tokens, end, padding; at least one chunk."""
    room = tokenizer.model_max_length - 2
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    pieces = [ids[start : start + room] for start in range(0, len(ids), room)] or [[]]
    special: Any = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    start, end, pad = special
    return [[start, *piece, end] + [pad] * (room - len(piece)) for piece in pieces]


def join_chunks(states: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
    """Encoded chunks (sum of counts, 77, width) back to one (77 * count, width) per prompt."""
    return [chunks.reshape(-1, states.shape[-1]) for chunks in states.split(list(counts))]


def stack_prompts(embeds: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stack (tokens, width) rows, padded to the longest: embeddings (rows, T, width) and the mask (rows, T).

    The mask, 1 where a row has tokens, is None where no row is padded.
    """
    longest = max(len(row) for row in embeds)
    if all(len(row) == longest for row in embeds):
        return torch.stack(list(embeds)), None
    stacked = torch.nn.utils.rnn.pad_sequence(list(embeds), batch_first=True)
    lengths = torch.tensor([len(row) for row in embeds])
    mask = (torch.arange(longest)[None] < lengths[:, None]).to(stacked.dtype)
    return stacked, mask.to(stacked.device, non_blocking=True)
