"""The CLIP-based safety checker that Stable Diffusion was published with."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from serve_app.config import SafetyConfig
from serve_app.errors import ModelLoadError
from serve_app.models.loading.devices import choose_device
from serve_app.models.loading.sources import find_checker


class SafetyChecker:
    """Flags images that should not be shown. Raises ModelLoadError where the config's checker cannot be loaded."""

    def __init__(self, config: SafetyConfig) -> None:
        folder = find_checker(config)
        whole = (folder / "safety_checker").is_dir()
        weights, preprocessor = (folder / "safety_checker", folder / "feature_extractor") if whole else (folder, folder)
        self._device = choose_device(config.device)
        disable_progress_bar()  # a server writes to a log
        # Its warning says that a black image is returned, which is not so here.
        logging.getLogger(StableDiffusionSafetyChecker.__module__).setLevel(logging.ERROR)
        try:
            checker: Any = StableDiffusionSafetyChecker.from_pretrained(
                weights, use_safetensors=True, local_files_only=True
            )
            self._processor: Any = CLIPImageProcessorPil.from_pretrained(preprocessor, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelLoadError(
                f"safety.checker: {folder} cannot be loaded ({error}): it must hold model.safetensors"
            ) from error
        self._checker: Any = checker.to(self._device).eval()

    @torch.inference_mode()
    def flags(self, images: Sequence[Image.Image]) -> list[bool]:
        """One verdict for each image: True where it is flagged."""
        inputs = self._processor(list(images), return_tensors="pt").pixel_values.to(self._device)
        # The checker blacks out flagged images; pass dummies.
        dummies = [np.zeros((1, 1, 3), np.float32) for _ in images]
        return [bool(flag) for flag in self._checker(clip_input=inputs, images=dummies)[1]]
