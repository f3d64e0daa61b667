"""Prompt encoding: many prompts in one batch, and each prompt once."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from serve_app.models.model_family import Conditioning, ModelFamily, Prompt, TokenizedPrompt


class PromptCache:
    """Encodes prompts in batches of at most `batch`, and keeps the most recently used ones, up to `max_bytes`.

    The bytes are on the model's device. LoRAs are not kept: those of the request at hand are added.
    `known` and `encoded` count the prompts that were found in the cache and those that were not.
    """

    def __init__(self, family: ModelFamily, batch: int, max_bytes: int) -> None:
        self._family = family
        self._batch = batch
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Prompt, Conditioning] = OrderedDict()
        self.num_bytes = 0
        self.known = 0
        self.encoded = 0

    def encode(self, prompts: Sequence[TokenizedPrompt]) -> dict[Prompt, Conditioning]:
        """The conditioning of every prompt. A prompt that is not in the cache is encoded once."""
        wanted = {one.prompt: one for one in prompts}
        unknown = [one for one in wanted.values() if one.prompt not in self._kept]
        found = {
            prompt: replace(self._kept[prompt], loras=one.loras)
            for prompt, one in wanted.items()
            if prompt in self._kept
        }
        self.known += len(found)
        self.encoded += len(unknown)
        for prompt in found:
            self._kept.move_to_end(prompt)
        for start in range(0, len(unknown), self._batch):
            part = unknown[start : start + self._batch]
            for one, conditioning in zip(part, self._family.encode(part), strict=True):
                found[one.prompt] = conditioning
                self._keep(one.prompt, conditioning.copy())
        return found

    def _keep(self, prompt: Prompt, conditioning: Conditioning) -> None:
        self._kept[prompt] = conditioning
        self.num_bytes += conditioning.num_bytes
        while self.num_bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.num_bytes -= dropped.num_bytes
