"""The stages of the autoencoder's training."""

from pathlib import Path

import torch

from serve_app.builtin.training.train_autoencoder import deepen, load_sharpened, new_autoencoder


def encode_and_decode(vae: torch.nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        latents = vae.encode(image, return_dict=False)[0].mode()  # type: ignore[operator]
        return latents, vae.decode(latents, return_dict=False)[0]  # type: ignore[operator]


def test_a_deeper_autoencoder_starts_as_the_same_function(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, image = new_autoencoder().eval(), torch.rand(1, 3, 64, 64) * 2 - 1
    deeper = deepen(vae).eval()
    assert sum(one.numel() for one in deeper.parameters()) > sum(one.numel() for one in vae.parameters())
    for one, other in zip(encode_and_decode(vae, image), encode_and_decode(deeper, image), strict=True):
        assert torch.equal(one, other)
    assert load_sharpened(vae, tmp_path) is vae, "no such stage has run"


def test_only_the_decoder_is_replaced_by_the_latest_stage(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, image = new_autoencoder().eval(), torch.rand(1, 3, 64, 64) * 2 - 1
    trained = deepen(new_autoencoder()).eval()
    parts = torch.nn.ModuleDict({"decoder": trained.decoder, "post_quant_conv": trained.post_quant_conv})
    torch.save({"modules": parts.state_dict()}, tmp_path / "vae-deeper.pt")
    found = load_sharpened(vae, tmp_path)
    latents, before = encode_and_decode(vae, image)
    again, after = encode_and_decode(found, image)
    assert torch.equal(latents, again), "so the denoiser stays valid"
    assert not torch.equal(before, after)
    with torch.inference_mode():
        assert torch.equal(after, trained.decode(latents, return_dict=False)[0])
