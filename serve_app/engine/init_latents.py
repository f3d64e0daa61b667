"""Where denoising starts: from noise, from an image, or from an image with a mask. Noise in diffusers' draw order."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from serve_app.diffusion.noise import NoiseSource, vary
from serve_app.diffusion.table import SamplerTable
from serve_app.models.autoencoder import Autoencoder, LatentDistribution
from serve_app.requests.image_files import Raster
from serve_app.requests.request import GenerationRequest, InitImage


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """An init image, encoded. `mask` is (1, h, w), 1 where to repaint.

    `masked` is the image with grey where to repaint; only inpainting UNets need it.
    """

    image: LatentDistribution
    masked: LatentDistribution | None = None
    mask: torch.Tensor | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Repaint:
    """Keeps what the mask keeps, for UNets that know nothing of masks: Lugmayr et al., RePaint (arXiv 2201.09865)."""

    original: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def restore(self, latents: torch.Tensor, noising: torch.Tensor) -> torch.Tensor:
        """`latents` (c, h, w) where the mask is 1, else the original with the noise of this step."""
        kept = float(noising[0]) * self.original + float(noising[1]) * self.noise
        return (1 - self.mask) * kept + self.mask * latents


@dataclass(frozen=True, eq=False, kw_only=True)
class InitialState:
    """What a trajectory begins with: latents (c, h, w), and the noise generator after its first draws."""

    latents: torch.Tensor
    noise: NoiseSource
    mask_channels: torch.Tensor | None = None
    repaint: Repaint | None = None


def initial_state(
    request: GenerationRequest,
    table: SamplerTable,
    source: Source | None,
    shape: tuple[int, int, int],
    device: torch.device,
) -> InitialState:
    """Draw the initial latents, of `shape` (c, h, w). Draws: the image's latents, the noise, the masked image's."""
    drawn = NoiseSource(request.seed, shape)
    if source is None:
        noise = _first_noise(request, drawn, shape).to(device)
        return InitialState(latents=noise * table.init_noise_sigma, noise=drawn)
    from_noise = source.mask is not None and request.init is not None and request.init.strength == 1
    image = None
    if not (from_noise and source.masked is not None):
        exact = source.image.std is None
        image = source.image.mean if exact else source.image.sample(drawn.draw())
    noise = _first_noise(request, drawn, shape).to(device)
    if from_noise or image is None:
        latents = noise * table.init_noise_sigma
    else:
        latents = float(table.noising[0, 0]) * image + float(table.noising[0, 1]) * noise
    if source.mask is None:
        return InitialState(latents=latents, noise=drawn)
    masked_draw = drawn.draw()
    if source.masked is not None:
        mask_channels = torch.cat([source.mask, source.masked.sample(masked_draw)])
        return InitialState(latents=latents, noise=drawn, mask_channels=mask_channels)
    if image is None:
        raise ValueError("a mask without its image")
    return InitialState(latents=latents, noise=drawn, repaint=Repaint(original=image, noise=noise, mask=source.mask))


def _first_noise(request: GenerationRequest, drawn: NoiseSource, shape: tuple[int, int, int]) -> torch.Tensor:
    noise = drawn.draw()
    if request.variation is None:
        return noise
    other = NoiseSource(request.variation.seed, shape).draw()
    return vary(noise, other, request.variation.strength)


def encode_source(init: InitImage, autoencoder: Autoencoder, mask_channels: bool, device: torch.device) -> Source:
    """Run the VAE's encoder over the image; with `mask_channels`, also over the image without what is repainted."""
    pixels = to_pixels(init.raster).to(device)
    mask = _to_mask(init.mask).to(device) if init.mask else None
    if mask is None and mask_channels:
        mask = torch.ones(pixels.shape[:2], device=device)
    image = autoencoder.encode(pixels[None])[0]
    if mask is None:
        return Source(image=image)
    masked = autoencoder.encode((pixels * (1 - mask)[:, :, None])[None])[0] if mask_channels else None
    small = F.interpolate(mask[None, None], size=image.mean.shape[-2:])[0]
    return Source(image=image, masked=masked, mask=small)


def to_pixels(raster: Raster) -> torch.Tensor:
    """(h, w, 3) float32 in -1..1."""
    pixels = torch.frombuffer(bytearray(raster.content), dtype=torch.uint8)
    return pixels.view(raster.height, raster.width, 3).float() / 255 * 2 - 1


def _to_mask(raster: Raster) -> torch.Tensor:
    """(h, w) float32, 1 where to repaint."""
    pixels = torch.frombuffer(bytearray(raster.content), dtype=torch.uint8)
    return pixels.view(raster.height, raster.width).float() / 255


def blank_init(width: int, height: int) -> InitImage:
    """A grey image to repaint whole: an inpainting UNet needs one also where the request has none."""
    grey = Raster(width=width, height=height, mode="RGB", content=b"\x80" * (3 * width * height))
    white = Raster(width=width, height=height, mode="L", content=b"\xff" * (width * height))
    return InitImage(raster=grey, strength=1.0, mask=white)
