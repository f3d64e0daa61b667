"""Stage 1: the autoencoder. Crops first (cheap), then whole images, then the decoder alone, then a deeper decoder.

Whole images matter: group norm's statistics over a crop differ from those over an image, and an autoencoder that was
trained on crops alone loses the colour of whole images. The decoder's stages do not change the latents, so the denoiser
stays valid.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from serve_app.builtin.training.captions import COLOURS
from serve_app.builtin.training.icons import compose
from serve_app.builtin.training.train_state import TrainingSchedule, train

CROPS = TrainingSchedule(steps=1800, learning_rate=1.5e-3)
WHOLE = TrainingSchedule(steps=3000, learning_rate=1.5e-3)
DECODER = TrainingSchedule(steps=4000, learning_rate=1e-3)
DEEPER = TrainingSchedule(steps=5000, learning_rate=1e-3)

PALETTE = torch.tensor(list(COLOURS.values()), dtype=torch.uint8)


def new_autoencoder(layers: int = 1) -> AutoencoderKL:
    """Untrained; factor 8, 4 latent channels; with one layer a block 2.6M parameters."""
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (16, 32, 64, 128),
        "layers_per_block": layers,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 128,
        "mid_block_add_attention": False,
    }
    return AutoencoderKL(**config)


def deepen(vae: AutoencoderKL) -> AutoencoderKL:
    """The same function with a second layer in each block; the new layers add nothing until they are trained."""
    deeper = new_autoencoder(layers=2)
    known = vae.state_dict()
    deeper.load_state_dict(known, strict=False)
    with torch.no_grad():
        for name, weight in deeper.named_parameters():
            if name not in known and ".conv2." in name:
                weight.zero_()
    return deeper


def sample_images(pixels: torch.Tensor, count: int, crop: int, generator: torch.Generator) -> torch.Tensor:
    """`count` icons, half on named colours and half on random ones: (count, 3, crop, crop) in -1..1."""
    rows = torch.randint(len(pixels), (count,), generator=generator)
    named = PALETTE[torch.randint(len(PALETTE), (count,), generator=generator)]
    other = torch.randint(256, (count, 3), generator=generator, dtype=torch.uint8)
    colours = torch.where(torch.rand(count, 1, generator=generator) < 0.5, named, other)
    images = compose(pixels[rows], colours)
    top, left = (int(v) for v in torch.randint(pixels.shape[-1] - crop + 1, (2,), generator=generator))
    return images[:, :, top : top + crop, left : left + crop]


def reconstruction_loss(image: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """L1 + MSE."""
    return F.l1_loss(decoded, image) + F.mse_loss(decoded, image)


def train_autoencoder(pixels: torch.Tensor, folder: Path) -> AutoencoderKL:
    """Train encoder and decoder together, in two stages; each resumes from its own checkpoint in `folder`."""
    vae: Any = new_autoencoder().train()
    modules = nn.ModuleDict({"vae": vae})

    def loss_on(count: int, crop: int, generator: torch.Generator) -> torch.Tensor:
        images = sample_images(pixels, count, crop, generator)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images, return_dict=False)[0]
            decoded = vae.decode(posterior.sample(generator), return_dict=False)[0]
        return reconstruction_loss(images, decoded.float()) + 1e-4 * posterior.kl().mean() / posterior.mean[0].numel()

    train(modules, lambda _, generator: loss_on(16, 64, generator), CROPS, folder / "vae-crops.pt")
    train(modules, lambda _, generator: loss_on(8, 128, generator), WHOLE, folder / "vae-whole.pt")
    return vae.eval()


def train_decoder(vae: AutoencoderKL, pixels: torch.Tensor, folder: Path) -> AutoencoderKL:
    """Train the decoder alone, so that the latents do not change; then make it deeper and train it again."""
    _sharpen(vae, pixels, DECODER, folder / "vae-decoder.pt")
    deeper = deepen(vae)
    _sharpen(deeper, pixels, DEEPER, folder / "vae-deeper.pt")
    return deeper.eval()


def _decoder_of(vae: Any) -> nn.ModuleDict:
    return nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})


def _sharpen(vae: Any, pixels: torch.Tensor, schedule: TrainingSchedule, path: Path) -> None:
    """One stage of the decoder's training."""

    def loss_at(_: int, generator: torch.Generator) -> torch.Tensor:
        images = sample_images(pixels, 8, 128, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(images, return_dict=False)[0].mode()
                latents = latents + 0.03 * latents.std() * torch.randn(latents.shape, generator=generator)
            decoded = vae.decode(latents, return_dict=False)[0]
        # The squared error prefers a blurred edge to one that is a pixel off.
        return F.l1_loss(decoded.float(), images)

    train(_decoder_of(vae), loss_at, schedule, path)


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """The autoencoder after the two joint stages."""
    vae = new_autoencoder()
    nn.ModuleDict({"vae": vae}).load_state_dict(torch.load(folder / "vae-whole.pt", weights_only=True)["modules"])
    return vae.eval()


def load_sharpened(vae: AutoencoderKL, folder: Path) -> AutoencoderKL:
    """`vae` with the decoder of the latest stage that has run; `vae` itself where none has."""
    for name, step in (("vae-deeper.pt", deepen), ("vae-decoder.pt", copy.deepcopy)):
        if (folder / name).exists():
            found = step(vae)
            _decoder_of(found).load_state_dict(torch.load(folder / name, weights_only=True)["modules"])
            return found.eval()
    return vae
