"""The safety checker's verdicts, and how a flagged image is blurred."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serve_app.errors import ModelLoadError
from serve_app.models.safety_checker import SafetyChecker
from serve_app.requests.image_files import blur_image, encode_image
from serve_app.requests.request import OutputSpec
from tests.checkpoints import save_safety_checker
from tests.compare_images import pixels
from tests.sample_images import photo


@pytest.mark.parametrize("flags", [True, False])
def test_every_image_of_a_batch_gets_a_verdict(tmp_path: Path, flags: bool) -> None:
    checker = SafetyChecker(str(save_safety_checker(tmp_path, flags)), "cpu")
    assert checker.flags([photo(), photo(48, 96, seed=1), photo(seed=2)]) == [flags] * 3


def test_a_checker_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"safety\.checker: /no/such does not exist"):
        SafetyChecker("/no/such", "cpu")
    with pytest.raises(ModelLoadError, match=r"safety\.checker: .* cannot be loaded"):
        SafetyChecker(str(tmp_path), "cpu")


def test_blurring_leaves_colours_and_metadata() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    output = OutputSpec(64, 64, infotext="a cat")
    blurred = blur_image(encode_image(noise, output), output)
    assert pixels(blurred).std() < noise.std() / 5
    with Image.open(io.BytesIO(blurred)) as image:
        assert image.info["parameters"] == "a cat"
