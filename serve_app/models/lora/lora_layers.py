"""LoRAs per row: rows of one forward may use different LoRAs, several at once, or none.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685). Nothing is merged into the weights:
a layer's output gets `weight * up(down(x))` in the rows that use the LoRA; the other rows do not change by a bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class LowRank:
    """One layer's update: `down` (rank, in, ...) and `up` (out, rank, ...), alpha / rank already in `up`."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """Memory of both tensors."""
        return self.down.nbytes + self.up.nbytes


@dataclass(frozen=True, eq=False)
class Lora:
    """A loaded LoRA: its updates by part and layer, such as `unet.mid_block.attentions.0.proj_in`."""

    name: str
    layers: Mapping[str, LowRank]

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(layer.num_bytes for layer in self.layers.values())


ActiveLora = tuple[Lora, float]
"""A LoRA and its weight in one row."""


@dataclass(frozen=True)
class _Use:
    """The rows that use one LoRA in the current forward: row indices and weights, both (uses,)."""

    layers: Mapping[str, LowRank]
    rows: torch.Tensor
    weights: torch.Tensor


class LoraLayers:
    """Hooks on the linear and convolution layers of `module`; `part` is its prefix in `Lora.layers`."""

    def __init__(self, module: nn.Module, part: str) -> None:
        self._uses: list[_Use] = []
        self._device = next(module.parameters()).device
        for path, layer in adaptable_layers(module, part).items():
            layer.register_forward_hook(partial(self._add_updates, path))

    @contextmanager
    def rows(self, loras: Sequence[Sequence[ActiveLora]]) -> Iterator[None]:
        """Inside this context, row i of every layer's output gets the updates of `loras[i]`."""
        named = {id(lora): lora for row in loras for lora, _ in row}
        self._uses = [self._use(lora, loras) for lora in named.values()]
        try:
            yield
        finally:
            self._uses = []

    def _use(self, lora: Lora, loras: Sequence[Sequence[ActiveLora]]) -> _Use:
        pairs = [(index, weight) for index, row in enumerate(loras) for used, weight in row if used is lora]
        rows = torch.tensor([index for index, _ in pairs]).to(self._device, non_blocking=True)
        weights = torch.tensor([weight for _, weight in pairs]).to(self._device, non_blocking=True)
        return _Use(layers=lora.layers, rows=rows, weights=weights)

    def _add_updates(self, path: str, layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        for use in self._uses:
            update = use.layers.get(path)
            if update is not None:
                change = _update(layer, update, inputs[0][use.rows])
                weights = use.weights.to(change.dtype).view(-1, *[1] * (change.dim() - 1))
                output = output.index_add(0, use.rows, change * weights)
        return output


def _update(layer: nn.Module, update: LowRank, inputs: torch.Tensor) -> torch.Tensor:
    """`up(down(inputs))`, for a linear layer or a convolution."""
    if isinstance(layer, nn.Conv2d):
        geometry: Any = (layer.stride, layer.padding, layer.dilation)
        return F.conv2d(F.conv2d(inputs, update.down, None, *geometry), update.up)
    return F.linear(F.linear(inputs, update.down), update.up)


def adaptable_layers(module: nn.Module, part: str) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that a LoRA can change, by path."""
    return {
        f"{part}.{name}": layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)
    }
