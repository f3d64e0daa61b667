"""`python -m serve_app.builtin.training STAGE --cache DIR`: train the built-in model, stage by stage.

Stages, in order: `autoencoder`, `denoiser`, `decoder` (sharper images, same latents), `export`, `sheet`. Each resumes
from its checkpoint in DIR; `export` writes what the checkpoints hold at that moment, even while training runs.
"""

import argparse
import logging
from pathlib import Path

import torch

from serve_app.builtin.training import export, train_autoencoder, train_denoiser
from serve_app.builtin.training.icons import Icon, fetch_packages, load_icons, render_all
from serve_app.builtin.training.vocabulary import find_tokenizer

MODEL = Path(__file__).parents[1] / "emoji"


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.builtin.training", description=__doc__)
    parser.add_argument("stage", choices=["autoencoder", "denoiser", "decoder", "export", "sheet"])
    parser.add_argument("--cache", type=Path, required=True, help="downloads, checkpoints and sample sheets")
    parser.add_argument("--model", type=Path, default=MODEL, help="the exported model")
    parser.add_argument("--warm-start", action="store_true", help="start the denoiser from --model's weights")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.stage == "sheet":
        export.draw_sheet(options.model, options.cache / "sheet.png")
        return
    fetch_packages(options.cache)
    icons = load_icons(options.cache)
    run_stage(options.stage, icons, options.cache, options.model, options.warm_start)


def run_stage(stage: str, icons: list[Icon], cache: Path, model: Path, warm_start: bool) -> None:
    """One stage that needs the icons."""
    pixels = render_all(icons, cache)
    if stage == "autoencoder":
        train_autoencoder.train_autoencoder(pixels, cache)
        return
    vae = train_autoencoder.load_autoencoder(cache)
    if stage == "decoder":
        train_autoencoder.train_decoder(vae, pixels, cache)
        return
    tokenizer = find_tokenizer(MODEL, icons)
    latents = train_denoiser.encode_latents(vae, pixels, cache / f"latents-{len(icons)}.pt")
    if stage == "denoiser":
        start = export.load_denoiser(model) if warm_start else None
        train_denoiser.train_denoiser(icons, latents, tokenizer, cache / "denoiser.pt", start)
        return
    averaged = train_denoiser.new_denoiser(tokenizer)
    averaged.load_state_dict(torch.load(cache / "denoiser.pt", weights_only=True)["ema"])
    averaged.eval()
    export.export(
        export.assemble_pipeline(train_autoencoder.load_sharpened(vae, cache), averaged, tokenizer, latents), model
    )


if __name__ == "__main__":
    main()
