"""The noise of one request: from its own CPU generator, in diffusers' draw order, so that a seed names an image."""

import torch


class NoiseSource:
    """A request's generator; every draw has the latents' shape.

    `drawn` counts the draws: for the init image, the initial noise, and the steps.
    """

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = shape
        self.drawn = 0

    def skip_to(self, drawn: int) -> None:
        """Draw until `drawn` draws have been made, for a trajectory that resumes in another process."""
        while self.drawn < drawn:
            self.draw()

    def draw(self) -> torch.Tensor:
        """Unit normal noise, (c, h, w) float32 on the CPU; the same values whatever the device and dtype in use."""
        self.drawn += 1
        return torch.randn(1, *self._shape, generator=self._generator)[0]


def vary(noise: torch.Tensor, other: torch.Tensor, strength: float) -> torch.Tensor:
    """Spherical interpolation from `noise` (strength 0) to `other` (1), both (c, h, w), column by column.

    AUTOMATIC1111's "variation seed", its choice of axis included. Shoemake, Animating Rotation with Quaternion Curves
    (1985).
    """
    unit, other_unit = noise / noise.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True)
    cosine = (unit * other_unit).sum(1, keepdim=True)
    if cosine.mean() > 0.9995:
        return noise * (1 - strength) + other * strength
    angle = cosine.clamp(-1, 1).acos()
    return (((1 - strength) * angle).sin() * noise + (strength * angle).sin() * other) / angle.sin()
