"""Textual inversion: a name in a prompt means its vectors, as in diffusers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serve_app.engine.engine import Engine
from serve_app.errors import ModelLoadError
from serve_app.models.load_family import load_family
from tests.compare_images import difference, draw_with_pipeline, load_pipeline, pixels
from tests.conftest import tiny_config
from tests.engine.tiny_requests import request


@pytest.fixture
def style(tmp_path: Path) -> Path:
    """Two vectors for an encoder of width 32."""
    torch.manual_seed(1)
    file = tmp_path / "style.safetensors"
    save_file({"emb_params": torch.randn(2, 32)}, file)
    return file


def test_a_name_in_a_prompt_draws_what_the_stock_pipeline_draws(tiny_sd: Path, style: Path) -> None:
    config = tiny_config(tiny_sd).model_copy(update={"embeddings": {"my-style": str(style)}})
    pipeline = load_pipeline(tiny_sd)
    pipeline.load_textual_inversion({"my-style": load_file(style)["emb_params"]}, token="my-style")
    with Engine(load_family(config), config) as engine:
        named, plain = request(engine, "x in my-style y"), request(engine, "x in y")
        image = engine.submit(named).result(30)
        theirs = draw_with_pipeline(pipeline, engine.family.scheduler_config, named)
        assert np.abs(pixels(image) - theirs).max() <= 1
        assert difference(image, engine.submit(plain).result(30)) > 5


def test_sdxl_takes_a_pair(tiny_sdxl: Path, tmp_path: Path) -> None:
    file = tmp_path / "pair.safetensors"
    save_file({"clip_l": torch.randn(1, 32), "clip_g": torch.randn(1, 48)}, file)
    config = tiny_config(tiny_sdxl).model_copy(update={"embeddings": {"pair": str(file)}})
    with Engine(load_family(config), config) as engine:
        first, second = (engine.submit(request(engine, prompt)).result(30) for prompt in ("x pair", "x"))
        assert difference(first, second) > 5


def test_an_embedding_that_does_not_fit_is_refused_at_start(tiny_sd: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.safetensors"
    save_file({"emb_params": torch.randn(1, 48)}, wide)
    for file, reason in ((wide, "48 wide"), (tmp_path / "none.safetensors", "does not exist")):
        with pytest.raises(ModelLoadError, match=rf"embeddings\.style: .*{reason}"):
            load_family(tiny_config(tiny_sd).model_copy(update={"embeddings": {"style": str(file)}}))
