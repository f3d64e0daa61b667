"""The engine on a GPU: images are those of the CPU, and do not depend on the batch.

Tolerance: 2 of 255 against the CPU, whose float32 kernels sum in another order; none between batches of the same GPU in
deterministic mode.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.engine.engine import Engine
from serve_app.requests.events import GeneratedImage
from tests.compare_images import difference, pixels
from tests.conftest import tiny_config
from tests.engine.tiny_requests import unlike_requests

DEVICE = "cuda"

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def draw(folder: Path, device: str, together: bool) -> list[GeneratedImage]:
    config = tiny_config(folder, deterministic=True).model_copy(update={"device": device, "dtype": "float32"})
    requests = unlike_requests(config)
    with Engine.load(config) as engine:
        if not together:
            return [engine.submit(one).result(60) for one in requests]
        futures = [engine.submit(one) for one in requests]
        return [future.result(60) for future in futures]


def test_a_gpu_draws_what_the_cpu_draws(tiny_sd: Path) -> None:
    on_gpu, on_cpu = draw(tiny_sd, DEVICE, together=True), draw(tiny_sd, "cpu", together=True)
    assert max(np.abs(pixels(one) - pixels(other)).max() for one, other in zip(on_gpu, on_cpu, strict=True)) <= 2


def test_an_image_does_not_depend_on_its_batch(tiny_sd: Path) -> None:
    alone, together = draw(tiny_sd, DEVICE, together=False), draw(tiny_sd, DEVICE, together=True)
    assert [difference(one, other) for one, other in zip(alone, together, strict=True)] == [0] * len(alone)
