"""A small CLIP tokenizer, trained on the captions: CLIP's own layout (bytes, bytes</w>, merges, start, end)."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer

from serve_app.builtin.training.captions import COLOUR_NAMES
from serve_app.builtin.training.icons import Icon

WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")


def find_tokenizer(model: Path, icons: list[Icon]) -> CLIPTokenizer:
    """The tokenizer in the model's directory, else a new one.

    The library's trainer numbers equally frequent pairs by chance: a new vocabulary for every run would give a few rare
    words other numbers than the weights were trained with.
    """
    if (model / "tokenizer").exists():
        return CLIPTokenizer.from_pretrained(str(model / "tokenizer"), local_files_only=True)
    return train_tokenizer(icons)


def train_tokenizer(icons: list[Icon], merges: int = 3000) -> CLIPTokenizer:
    """Byte-pair merges over names, keywords and colours. Any text can be encoded; unseen words are split in pieces."""
    trainee = Tokenizer(BPE(end_of_word_suffix="</w>"))
    trainee.normalizer = normalizers.Lowercase()
    trainee.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORDS, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    names = [f"{icon.name} on a {colour} background" for icon in icons for colour in COLOUR_NAMES]
    trainee.train_from_iterator(names + [", ".join(icon.keywords) for icon in icons], trainer)
    pairs: list[Any] = [tuple(pair) for pair in json.loads(trainee.to_str())["model"]["merges"]]
    merged = [left + right for left, right in pairs]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    words = dict.fromkeys([*alphabet, *(f"{char}</w>" for char in alphabet), *merged, *specials])
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77)
