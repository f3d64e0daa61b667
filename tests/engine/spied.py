"""A model family that a test can watch, hold up and spoil."""

import threading
from collections.abc import Callable
from typing import Any

import torch

from serve_app.models.model_family import DenoisingBatch, TokenizedPrompt


class Spied:
    """A family that lets a test watch, hold up or spoil its calls."""

    def __init__(self, family: Any) -> None:
        self._family = family
        self.batches: list[DenoisingBatch] = []
        self.encoded: list[int] = []
        self.before_predict: Callable[[DenoisingBatch], None] = lambda _: None
        self.spoil: Callable[[DenoisingBatch, torch.Tensor], torch.Tensor] = lambda _, output: output

    def forget(self) -> None:
        """What was called so far, as by an engine that measures its steps."""
        self.batches.clear()
        self.encoded.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def encode(self, prompts: list[TokenizedPrompt]) -> Any:
        self.encoded.append(len(prompts))
        return self._family.encode(prompts)

    def predict(self, batch: DenoisingBatch) -> torch.Tensor:
        self.before_predict(batch)
        self.batches.append(batch)
        return self.spoil(batch, self._family.predict(batch))


def hold(family: Spied) -> tuple[threading.Event, threading.Event]:
    """Stop the engine inside its next forward: `reached` is set there, and it goes on once `go` is set."""
    reached, go = threading.Event(), threading.Event()

    def wait(_: DenoisingBatch) -> None:
        reached.set()
        assert go.wait(30)

    family.before_predict = wait
    return reached, go
