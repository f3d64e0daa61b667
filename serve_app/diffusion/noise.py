"""Noise of one request: from its own CPU generator, in diffusers' draw order, so that a seed names a picture."""

import torch


class NoiseSource:
    """A request's generator. The first draw is the initial noise; the sampler's draws follow, one a step."""

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = shape

    def draw(self) -> torch.Tensor:
        """Unit normal noise, (c, h, w) float32 on the CPU; the same values whatever the device and dtype in use."""
        return torch.randn(1, *self._shape, generator=self._generator)[0]
