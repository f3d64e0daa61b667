"""A checkpoint in one `.safetensors` file, in the original Stable Diffusion layout. Nothing comes from the hub."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError, safe_open
from transformers import CLIPTokenizer

from serve_app.errors import ModelLoadError

LAYOUTS = Path(__file__).parent / "layouts"
PIPELINES: Mapping[str, Any] = {
    "stable-diffusion": StableDiffusionPipeline,
    "stable-diffusion-2": StableDiffusionPipeline,
    "stable-diffusion-xl": StableDiffusionXLPipeline,
}
FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
MARKS = {
    "conditioner.embedders.1.": "stable-diffusion-xl",
    "cond_stage_model.model.": "stable-diffusion-2",
    "cond_stage_model.transformer.": "stable-diffusion",
}
PADDING = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
Broken = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, SingleFileComponentError)


class SingleFile:
    """A `PartSource`. The file is converted once, whole; parts are then handed out.

    Args:
        path: the file.
        family: which of `PIPELINES` it is; read from its keys where None.
        config: a diffusers directory whose configs describe its shapes; by default the family's own.
    """

    def __init__(self, path: Path, dtype: torch.dtype, family: str | None, config: Path | None) -> None:
        shapes = read_shapes(path)
        self._family = family or recognise(path, shapes)
        self._layout = config or LAYOUTS / self._family
        self._has_vae = any(key.startswith("first_stage_model.") for key in shapes)
        with tempfile.TemporaryDirectory() as folder:
            layout = _copy_layout(self._layout, Path(folder), shapes)
            absent = {} if self._has_vae else {"vae": None}
            if PIPELINES[self._family] is StableDiffusionPipeline:
                absent |= {"safety_checker": None, "feature_extractor": None}
            tokenizers = {name: self.load_tokenizer(name) for name in self.index() if name.startswith("tokenizer")}
            try:
                self._pipeline = PIPELINES[self._family].from_single_file(
                    str(path), config=str(layout), torch_dtype=dtype, local_files_only=True, **tokenizers, **absent
                )
            except Broken as error:
                raise ModelLoadError(f"source: {path} does not fit {self._family} ({error})") from error

    def index(self) -> Mapping[str, Any]:
        """See `PartSource`."""
        return json.loads((self._layout / "model_index.json").read_text())

    def scheduler_config(self) -> Mapping[str, object]:
        """See `PartSource`."""
        return json.loads((self._layout / "scheduler" / "scheduler_config.json").read_text())

    def has(self, name: str) -> bool:
        """See `PartSource`."""
        return self._has_vae if name == "vae" else name in self.index()

    def load(self, part: Any, name: str, dtype: torch.dtype) -> Any:
        """See `PartSource`."""
        return getattr(self._pipeline, name)

    def load_tokenizer(self, name: str) -> CLIPTokenizer:
        """See `PartSource`. Every Stable Diffusion has CLIP's vocabulary; they differ in what they pad with."""
        if (self._layout / name).is_dir():
            return CLIPTokenizer.from_pretrained(self._layout / name, local_files_only=True)
        padding = "!" if self._family == "stable-diffusion-2" else PADDING[name]
        return clip_tokenizer(padding)


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Every tensor's name and shape; raises ModelLoadError where the file is cut short or no safetensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{path} cannot be read ({error}): download it again") from error


def recognise(path: Path, shapes: Mapping[str, list[int]]) -> str:
    """The family, by the text encoders' names."""
    for mark, family in MARKS.items():
        if FIRST_CONVOLUTION in shapes and any(key.startswith(mark) for key in shapes):
            return family
    known = ", ".join(PIPELINES)
    raise ModelLoadError(f"source: {path} holds the keys of no known family: say family:, one of {known}")


def clip_tokenizer(padding: str) -> CLIPTokenizer:
    """CLIP's own tokenizer, from the merges that its authors published (MIT)."""
    merges = [tuple(line.split()) for line in (LAYOUTS / "clip_merges.txt").read_text().splitlines()]
    alphabet = [chr(code) for code in _byte_codes()]
    words = [*alphabet, *(f"{char}</w>" for char in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    pairs: Any = merges
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token=padding, model_max_length=77)


def load_single_vae(path: Path, dtype: torch.dtype) -> AutoencoderKL:
    """A VAE in the original layout, of Stable Diffusion's shape."""
    try:
        return AutoencoderKL.from_single_file(
            str(path),
            config=str(LAYOUTS / "stable-diffusion"),
            subfolder="vae",
            torch_dtype=dtype,
            local_files_only=True,
        )
    except Broken as error:
        raise ModelLoadError(f"vae: {path} is no VAE of Stable Diffusion's shape ({error})") from error


def _copy_layout(layout: Path, folder: Path, shapes: Mapping[str, list[int]]) -> Path:
    """The layout with the UNet's input channels as the file has them: 9 for inpainting."""
    copy = Path(shutil.copytree(layout, folder / "layout"))
    config = copy / "unet" / "config.json"
    stated = json.loads(config.read_text())
    config.write_text(json.dumps({**stated, "in_channels": shapes[FIRST_CONVOLUTION][1]}))
    return copy


def _byte_codes() -> list[int]:
    """The characters that stand for the 256 bytes, in GPT-2's order: printable ones first, as themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return printable + [256 + index for index in range(256 - len(printable))]
