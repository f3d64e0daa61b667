"""The safety checker's verdicts, and how a flagged image is blurred."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from serve_app.config import SafetyConfig
from serve_app.errors import ModelLoadError
from serve_app.models.safety_checker import SafetyChecker
from serve_app.requests.image_files import blur_image, encode_image
from serve_app.requests.request import OutputSpec
from tests.checkpoints import save_safety_checker
from tests.compare_images import pixels
from tests.sample_images import photo


def checker_at(source: Path | str) -> SafetyConfig:
    return SafetyConfig(checker=str(source), device="cpu")


@pytest.mark.parametrize("flags", [True, False])
def test_every_image_of_a_batch_gets_a_verdict(tmp_path: Path, flags: bool) -> None:
    checker = SafetyChecker(checker_at(save_safety_checker(tmp_path, flags)))
    assert checker.flags([photo(), photo(48, 96, seed=1), photo(seed=2)]) == [flags] * 3


def test_the_checker_of_a_whole_checkpoint_is_found(tmp_path: Path) -> None:
    """As Stable Diffusion was published: the checker and its preprocessor in folders of their own."""
    save_safety_checker(tmp_path / "safety_checker", flags=True)
    (tmp_path / "feature_extractor").mkdir()
    shutil.move(tmp_path / "safety_checker" / "preprocessor_config.json", tmp_path / "feature_extractor")
    assert SafetyChecker(checker_at(tmp_path)).flags([photo()]) == [True]


def test_a_pickled_checker_is_refused(tmp_path: Path) -> None:
    """The repository that has the checker alone has it pickled."""
    weights = save_safety_checker(tmp_path, flags=True) / "model.safetensors"
    torch.save(load_file(weights), tmp_path / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelLoadError, match=r"cannot be loaded .* it must hold model\.safetensors"):
        SafetyChecker(checker_at(tmp_path))


def test_a_checker_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"safety\.checker: /no/such does not exist"):
        SafetyChecker(checker_at("/no/such"))
    with pytest.raises(ModelLoadError, match=r"safety\.checker: .* cannot be loaded"):
        SafetyChecker(checker_at(tmp_path))


def test_blurring_leaves_colours_and_metadata() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    output = OutputSpec(64, 64, infotext="a cat")
    blurred = blur_image(encode_image(noise, output), output)
    assert pixels(blurred).std() < noise.std() / 5
    with Image.open(io.BytesIO(blurred)) as image:
        assert image.info["parameters"] == "a cat"
