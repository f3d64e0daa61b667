"""The configured LoRAs in memory, up to a size."""

import threading
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from serve_app.models.lora.lora_layers import ActiveLora, Lora


class LoraStore:
    """Loads LoRAs by name and keeps the most recently used of them, up to `max_bytes`. Thread-safe.

    A LoRA that an image still uses is not read a second time. Every LoRA is read once at construction, so that a broken
    file fails the start and not a request.

    Args:
        read: reads a LoRA from its file, by name.
        names: the configured LoRAs.
        max_bytes: at least one LoRA stays loaded, whatever its size.
    """

    def __init__(self, read: Callable[[str], Lora], names: Sequence[str], max_bytes: int) -> None:
        self._read = read
        self._max_bytes = max_bytes
        self._loaded: dict[str, Lora] = {}
        self._in_use: WeakValueDictionary[str, Lora] = WeakValueDictionary()
        self._lock = threading.Lock()
        for name in names:
            self.get(name)

    def get(self, name: str) -> Lora:
        """The LoRA `name`, read from its file where it is not loaded."""
        with self._lock:
            lora = self._in_use.get(name) or self._read(name)
            self._loaded.pop(name, None)
            self._loaded[name] = self._in_use[name] = lora
            while len(self._loaded) > 1 and sum(one.num_bytes for one in self._loaded.values()) > self._max_bytes:
                del self._loaded[next(iter(self._loaded))]
            return lora

    def activate(self, choices: Sequence[tuple[str, float]]) -> tuple[ActiveLora, ...]:
        """(name, weight) pairs to (LoRA, weight) pairs."""
        return tuple((self.get(name), weight) for name, weight in choices)
