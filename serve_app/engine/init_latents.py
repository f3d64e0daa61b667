"""Where denoising starts: from noise, from a picture, or from a picture with a hole. In diffusers' draw order."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from serve_app.diffusion.noise import NoiseSource, vary
from serve_app.diffusion.table import SamplerTable
from serve_app.models.autoencoder import Autoencoder, LatentDistribution
from serve_app.requests.request import GenerationRequest, InitImage, Raster


@dataclass(frozen=True, eq=False)
class Source:
    """A given picture, encoded: itself, what its mask keeps of it, and the mask (1, h, w), 1 where to repaint.

    `masked` is encoded for inpainting UNets only.
    """

    picture: LatentDistribution
    masked: LatentDistribution | None = None
    mask: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Repaint:
    """Keeps what the mask keeps, for UNets that know nothing of masks: Lugmayr et al., RePaint (arXiv 2201.09865)."""

    original: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def restore(self, latents: torch.Tensor, noising: torch.Tensor) -> torch.Tensor:
        """`latents` (c, h, w) where the mask is 1, else the original at this step's noise."""
        kept = float(noising[0]) * self.original + float(noising[1]) * self.noise
        return (1 - self.mask) * kept + self.mask * latents


@dataclass(frozen=True, eq=False)
class Start:
    """What a trajectory begins with: latents, and the generator after its first draws."""

    latents: torch.Tensor
    noise: NoiseSource
    mask_channels: torch.Tensor | None = None
    repaint: Repaint | None = None


def start(
    request: GenerationRequest,
    table: SamplerTable,
    source: Source | None,
    shape: tuple[int, int, int],
    device: torch.device,
) -> Start:
    """Draw what must be drawn; `shape` is the latents'. Draw order: the picture, the noise, the masked picture."""
    drawn = NoiseSource(request.seed, shape)
    if source is None:
        noise = _first_noise(request, drawn, shape).to(device)
        return Start(noise * table.init_noise_sigma, drawn)
    from_noise = source.mask is not None and request.init is not None and request.init.strength == 1
    picture = None
    if not (from_noise and source.masked is not None):
        certain = source.picture.std is None
        picture = source.picture.mean if certain else source.picture.sample(drawn.draw())
    noise = _first_noise(request, drawn, shape).to(device)
    if from_noise or picture is None:
        latents = noise * table.init_noise_sigma
    else:
        latents = float(table.noising[0, 0]) * picture + float(table.noising[0, 1]) * noise
    if source.mask is None:
        return Start(latents, drawn)
    masked_draw = drawn.draw()
    if source.masked is not None:
        return Start(latents, drawn, mask_channels=torch.cat([source.mask, source.masked.sample(masked_draw)]))
    if picture is None:
        raise ValueError("a mask without its picture")
    return Start(latents, drawn, repaint=Repaint(picture, noise, source.mask))


def _first_noise(request: GenerationRequest, drawn: NoiseSource, shape: tuple[int, int, int]) -> torch.Tensor:
    noise = drawn.draw()
    if request.variation is None:
        return noise
    other = NoiseSource(request.variation.seed, shape).draw()
    return vary(noise, other, request.variation.strength)


def encode_source(init: InitImage, autoencoder: Autoencoder, mask_channels: bool, device: torch.device) -> Source:
    """Run the VAE's encoder over a given picture, and over what its mask keeps where the UNet wants to see that."""
    picture = to_pixels(init.raster).to(device)
    mask = _to_mask(init.mask).to(device) if init.mask else None
    if mask is None and mask_channels:
        mask = torch.ones(picture.shape[:2], device=device)
    encoded = autoencoder.encode(picture[None])[0]
    if mask is None:
        return Source(encoded)
    masked = autoencoder.encode((picture * (1 - mask)[:, :, None])[None])[0] if mask_channels else None
    small = F.interpolate(mask[None, None], size=encoded.mean.shape[-2:])[0]
    return Source(encoded, masked, small)


def to_pixels(raster: Raster) -> torch.Tensor:
    """(h, w, 3) float32 in -1..1."""
    pixels = torch.frombuffer(bytearray(raster.content), dtype=torch.uint8)
    return pixels.view(raster.height, raster.width, 3).float() / 255 * 2 - 1


def _to_mask(raster: Raster) -> torch.Tensor:
    """(h, w) float32, 1 where to repaint."""
    pixels = torch.frombuffer(bytearray(raster.content), dtype=torch.uint8)
    return pixels.view(raster.height, raster.width).float() / 255


def blank_init(width: int, height: int) -> InitImage:
    """A grey picture to be repainted whole: what an inpainting UNet draws from when it is given no picture."""
    grey = Raster(width, height, "RGB", b"\x80" * (3 * width * height))
    return InitImage(grey, 1.0, Raster(width, height, "L", b"\xff" * (width * height)))
