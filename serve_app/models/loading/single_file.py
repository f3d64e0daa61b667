"""A checkpoint in one `.safetensors` file, in the original Stable Diffusion layout. Nothing comes from the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import SingleFileComponentError, create_diffusers_clip_model_from_ldm
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import CLIPTokenizer, PreTrainedModel

from serve_app.errors import ModelLoadError
from serve_app.models.broken_weights import BROKEN_WEIGHTS
from serve_app.models.loading.diffusers_directory import DiffusersDirectory

LAYOUTS = Path(__file__).parent / "layouts"
"""The configs of each family's parts, as published."""

FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
MARKS = {
    "conditioner.embedders.1.": "stable-diffusion-xl",
    "cond_stage_model.model.": "stable-diffusion-2",
    "cond_stage_model.transformer.": "stable-diffusion",
}
"""How keys of a family's text encoders begin, to the family."""

PADDING = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
BROKEN = (*BROKEN_WEIGHTS, SingleFileComponentError)


class SingleFile:
    """A `PartSource`.

    Args:
        path: the file.
        family: a directory of `LAYOUTS`; where None, it is recognised by the file's keys.
        config: a diffusers directory whose configs give the shapes; by default the family's own.
    """

    def __init__(self, path: Path, family: str | None, config: Path | None) -> None:
        self._path = path
        self._shapes = read_shapes(path)
        self._family = family or recognise(path, self._shapes)
        self._layout = DiffusersDirectory(config or LAYOUTS / self._family)
        self._weights = load_file(path)

    def index(self) -> Mapping[str, Any]:
        """See `PartSource`."""
        return self._layout.index()

    def scheduler_config(self) -> Mapping[str, object]:
        """See `PartSource`."""
        return self._layout.scheduler_config()

    def has(self, name: str) -> bool:
        """See `PartSource`."""
        if name == "vae":
            return any(key.startswith("first_stage_model.") for key in self._shapes)
        return name in self.index()

    def load(self, part: Any, name: str, dtype: torch.dtype) -> Any:
        """See `PartSource`."""
        options: dict[str, Any] = {"config": str(self._layout.folder), "subfolder": name, "torch_dtype": dtype}
        try:
            if issubclass(part, PreTrainedModel):
                return create_diffusers_clip_model_from_ldm(
                    part, checkpoint=self._weights, local_files_only=True, **options
                )
            if name == "unet" and FIRST_CONVOLUTION in self._shapes:
                options["in_channels"] = self._shapes[FIRST_CONVOLUTION][1]  # 9 for inpainting
            return part.from_single_file(self._weights, local_files_only=True, **options)
        except BROKEN as error:
            raise ModelLoadError(f"source: {self._path} does not fit {self._family} at {name} ({error})") from error

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """See `PartSource`. Every Stable Diffusion has CLIP's vocabulary; they differ in the padding token."""
        if self._layout.has(name):
            return self._layout.load_tokenizer(name)
        padding = "!" if self._family == "stable-diffusion-2" else PADDING[name]
        return clip_tokenizer(padding)


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Every tensor's name and shape. Raises ModelLoadError where the file is cut short or not safetensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{path} cannot be read ({error}): download it again") from error


def recognise(path: Path, shapes: Mapping[str, list[int]]) -> str:
    """The family, by the keys of its text encoders. Raises ModelLoadError."""
    for mark, family in MARKS.items():
        if FIRST_CONVOLUTION in shapes and any(key.startswith(mark) for key in shapes):
            return family
    known = ", ".join(sorted(MARKS.values()))
    raise ModelLoadError(f"source: {path} has the keys of no known family: name it with family:, one of {known}")


def clip_tokenizer(padding: str) -> CLIPTokenizer:
    """CLIP's own tokenizer, from the merges that its authors published (MIT)."""
    merges = [tuple(line.split()) for line in (LAYOUTS / "clip_merges.txt").read_text().splitlines()]
    alphabet = [chr(code) for code in _byte_codes()]
    words = [*alphabet, *(f"{char}</w>" for char in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    pairs: Any = merges
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token=padding, model_max_length=77)


def load_single_vae(path: Path, dtype: torch.dtype) -> AutoencoderKL:
    """A VAE in the original layout, in Stable Diffusion's shape. Raises ModelLoadError."""
    try:
        return AutoencoderKL.from_single_file(
            str(path),
            config=str(LAYOUTS / "stable-diffusion"),
            subfolder="vae",
            torch_dtype=dtype,
            local_files_only=True,
        )
    except BROKEN as error:
        raise ModelLoadError(f"vae: {path} must hold a VAE of Stable Diffusion's shape ({error})") from error


def _byte_codes() -> list[int]:
    """The characters that stand for the 256 bytes, in GPT-2's order: printable ones first, as themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return printable + [256 + index for index in range(256 - len(printable))]
