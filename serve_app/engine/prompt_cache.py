"""Prompt encoding: batched over the requests that wait, and remembered."""

from collections import OrderedDict
from collections.abc import Sequence

from serve_app.models.model_family import Conditioning, ModelFamily, Prompt


class PromptCache:
    """Encodes prompts in batches of at most `batch`, keeping the last `remember` results.

    `known` and `encoded` count the prompts that were remembered and those that were not.
    """

    def __init__(self, family: ModelFamily, batch: int, remember: int) -> None:
        self._family = family
        self._batch = batch
        self._remember = remember
        self.known = 0
        self.encoded = 0
        self._known: OrderedDict[Prompt, Conditioning] = OrderedDict()

    def encode(self, prompts: Sequence[Prompt]) -> dict[Prompt, Conditioning]:
        """The conditioning of every prompt; each unknown one is encoded once."""
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
        while len(self._known) > self._remember:
            self._known.popitem(last=False)
        return found
