"""Prompt encoding: many prompts in one batch, and each prompt once."""

from collections import OrderedDict
from collections.abc import Sequence

from serve_app.models.model_family import Conditioning, ModelFamily, Prompt


class PromptCache:
    """Encodes prompts in batches of at most `batch` and keeps the `size` most recently used.

    `known` and `encoded` count the prompts that were found in the cache and those that were not.
    """

    def __init__(self, family: ModelFamily, batch: int, size: int) -> None:
        self._family = family
        self._batch = batch
        self._size = size
        self._known: OrderedDict[Prompt, Conditioning] = OrderedDict()
        self.known = 0
        self.encoded = 0

    def encode(self, prompts: Sequence[Prompt]) -> dict[Prompt, Conditioning]:
        """The conditioning of every prompt. A prompt that is not in the cache is encoded once."""
        wanted = dict.fromkeys(prompts)
        unknown = [prompt for prompt in wanted if prompt not in self._known]
        found = {prompt: self._known[prompt] for prompt in wanted if prompt in self._known}
        self.known += len(found)
        self.encoded += len(unknown)
        for start in range(0, len(unknown), self._batch):
            part = unknown[start : start + self._batch]
            found |= zip(part, self._family.encode(part), strict=True)
        for prompt, conditioning in found.items():
            self._known[prompt] = conditioning
            self._known.move_to_end(prompt)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return found
