"""Stage 2: the denoiser and its text encoder, together, on the autoencoder's latents.

v-prediction over linear betas 1e-4..0.02 leaves 0.6% of the signal at the last step, so solid backgrounds get the right
colour; Stable Diffusion's scaled-linear betas leave 7% and tint them.
"""

import copy
import random
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from serve_app.builtin.training.captions import COLOUR_NAMES, draw_caption, training_pairs
from serve_app.builtin.training.icons import Icon, compose
from serve_app.builtin.training.train_autoencoder import PALETTE
from serve_app.builtin.training.train_state import TrainingSchedule, train

BATCH = 32
SMOOTHING = 4200
DENOISER = TrainingSchedule(steps=12000, learning_rate=6e-4)


def new_denoiser(tokenizer: CLIPTokenizer) -> nn.ModuleDict:
    """Untrained `unet` (11M parameters) and `text_encoder` (192 wide, 2 layers)."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=192,
        attention_head_dim=4,
    )
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=3,
        projection_dim=192,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        pad_token_id=len(tokenizer) - 1,
    )
    return nn.ModuleDict({"unet": unet, "text_encoder": CLIPTextModel(config)})


def sampler_config() -> Any:
    """The scheduler config the model ships with; training reads its noise levels."""
    return DDIMScheduler(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def encode_latents(vae: AutoencoderKL, pixels: torch.Tensor, path: Path) -> torch.Tensor:
    """Every icon on every named background: (icons, colours, 4, 16, 16), unscaled, cached at `path`."""
    if not path.exists():
        rows = []
        for icon in pixels:
            images = compose(icon.expand(len(PALETTE), -1, -1, -1), PALETTE)
            with torch.autocast("cpu", torch.bfloat16):
                rows.append(vae.encode(images, return_dict=False)[0].mode().float())
        torch.save(torch.stack(rows), path)
    return torch.load(path, weights_only=True)


def draw_timesteps(step: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) in 0..999. At first late timesteps are more likely: the most noise decides which icon it is.

    From step `SMOOTHING` on all are equally likely: the least noise decides whether speckles remain.
    """
    drawn = torch.rand(count, generator=generator)
    return (1000 * (drawn.sqrt() if step < SMOOTHING else drawn)).long()


def train_denoiser(
    icons: list[Icon], latents: torch.Tensor, tokenizer: CLIPTokenizer, path: Path, start: nn.ModuleDict | None = None
) -> nn.ModuleDict:
    """Train from `path`'s checkpoint, else from `start`'s weights, else anew. Returns the averaged weights."""
    modules = new_denoiser(tokenizer)
    if start is not None:
        modules.load_state_dict(start.state_dict())
    for module in modules.values():
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # a quarter faster on a CPU
    ema = copy.deepcopy(modules).eval()
    noise_levels = sampler_config()
    pairs = training_pairs(icons)
    scaled = latents / latents.std()

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        dice = random.Random(step)  # noqa: S311  # draws captions, no secrets
        chosen = [pairs[dice.randrange(len(pairs))] for _ in range(BATCH)]
        captions = [draw_caption(icons[row], COLOUR_NAMES[column], dice) for row, column in chosen]
        x0 = torch.stack([scaled[pair] for pair in chosen])
        noise = torch.randn(x0.shape, generator=generator)
        timesteps = draw_timesteps(step, BATCH, generator)
        noisy = noise_levels.add_noise(x0, noise, timesteps)
        velocity = noise_levels.get_velocity(x0, noise, timesteps)
        tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        # On a CPU the fused attention's backward pass is slower than the plain one.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            states = modules["text_encoder"](tokens.input_ids)[0]
            predicted = modules["unet"](noisy, timesteps, states).sample
        return F.mse_loss(predicted.float(), velocity)

    train(modules, loss_at, DENOISER, path, ema)
    return ema
