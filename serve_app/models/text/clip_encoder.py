"""One CLIP text encoder: chunks in, hidden states out, LoRAs applied per prompt."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPTokenizer

from serve_app.models.lora.lora_layers import ActiveLora, LoraLayers
from serve_app.models.model_family import Chunk, Prompt
from serve_app.models.text.chunks import tokenize
from serve_app.models.text.textual_inversion import expand_names


@dataclass(frozen=True)
class Encoded:
    """The states of all prompts' chunks, one after the other.

    `hidden` are layers + 1 tensors (chunks, 77, width), the embeddings first; `last` is the last of them after the
    final norm; `pooled` is (chunks, width) where the encoder has a projection, else None.
    """

    hidden: Sequence[torch.Tensor]
    last: torch.Tensor
    pooled: torch.Tensor | None


class TextEncoder:
    """A tokenizer and its encoder; `part` is the encoder's name in LoRA files.

    `lora_layers` says whether LoRAs may be applied.
    """

    def __init__(self, tokenizer: CLIPTokenizer, module: Any, part: str, lora_layers: bool) -> None:
        self._tokenizer = tokenizer
        self._module = module
        self._lora_layers = LoraLayers(module, part) if lora_layers else None
        # Special tokens are added ones, too; names of textual inversions come on top.
        self._has_names = len(tokenizer.added_tokens_encoder) > len(set(tokenizer.all_special_tokens))
        self._lock = threading.Lock()
        self.num_layers = int(module.config.num_hidden_layers)

    def tokenize(self, prompt: Prompt) -> list[Chunk]:
        """The prompt in chunks of 77 token ids. From any thread."""
        text = expand_names(prompt.text, self._tokenizer) if self._has_names else prompt.text
        with self._lock:
            return tokenize(self._tokenizer, text, prompt.weighted)

    def encode(self, chunks: Sequence[Chunk], loras: Sequence[Sequence[ActiveLora]]) -> Encoded:
        """All chunks in one forward; `loras` are each chunk's."""
        ids = torch.tensor([chunk.ids for chunk in chunks], device=self._module.device)
        used = self._lora_layers.rows(loras) if self._lora_layers and any(loras) else nullcontext()
        with used:
            outputs = self._module(ids, output_hidden_states=True)
        return Encoded(
            hidden=outputs.hidden_states,
            last=outputs.last_hidden_state,
            pooled=getattr(outputs, "text_embeds", None),
        )

    def normalize(self, states: torch.Tensor) -> torch.Tensor:
        """The encoder's final layer norm."""
        return self._module.final_layer_norm(states)
