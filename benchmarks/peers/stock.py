"""What the peers on torch share: the stock diffusers pipeline behind `POST /txt2img/`'s body."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from diffusers import DiffusionPipeline

from serve_app.config import ModelConfig
from serve_app.diffusion.new_scheduler import new_scheduler
from serve_app.models.cpu_threads import count_cores, prepare_cpu
from serve_app.models.loading.sources import find_checkpoint

KEY = ("num_inference_steps", "guidance_scale", "sampler", "scheduler", "width", "height")
"""What the rows of one pipeline call must agree in."""

Body = Mapping[str, Any]


class StockPipeline:
    """Loaded once; draws PNGs, from any thread, one call at a time. On every core, in bfloat16.

    It has what Darkroom gives itself: the same allocator settings, and one thread that runs all of torch; a pool of
    OpenMP workers for each of a server's threads would cost half the speed.
    """

    def __init__(self, source: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._load, source).result()

    def draw(self, bodies: Sequence[Body]) -> list[bytes]:
        """Bodies that agree in `KEY`, in one call."""
        return self._thread.submit(self._draw, bodies).result()

    def _load(self, source: str) -> None:
        prepare_cpu(count_cores(None))
        folder = find_checkpoint(ModelConfig(source=source))
        self._pipeline: Any = DiffusionPipeline.from_pretrained(str(folder), torch_dtype=torch.bfloat16)
        self._pipeline.set_progress_bar_config(disable=True)
        self._scheduler_config = dict(self._pipeline.scheduler.config)
        self._draw([{**dict.fromkeys(KEY, 64), "num_inference_steps": 2, "prompt": "", "seed": 0, **WARM_UP}])

    def _draw(self, bodies: Sequence[Body]) -> list[bytes]:
        first = bodies[0]
        self._pipeline.scheduler = new_scheduler(self._scheduler_config, first["sampler"], first["scheduler"])
        pictures = self._pipeline(
            [body["prompt"] for body in bodies],
            generator=[torch.Generator().manual_seed(body["seed"]) for body in bodies],
            **{name: first[name] for name in ("num_inference_steps", "guidance_scale", "width", "height")},
        ).images
        return [as_png(picture) for picture in pictures]


WARM_UP: Body = {"guidance_scale": 5.0, "sampler": "euler", "scheduler": "automatic"}


def as_png(picture: Any) -> bytes:
    """The file, compressed as Darkroom does by default."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def equal_groups(bodies: Sequence[Body]) -> list[list[int]]:
    """Indices of the bodies that agree in `KEY`, group by group."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, body in enumerate(bodies):
        groups[tuple(body[name] for name in KEY)].append(index)
    return list(groups.values())
