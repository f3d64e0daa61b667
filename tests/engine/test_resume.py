"""Resuming: from any resume point another engine draws the same image, and only the steps that are left."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.errors import GenerationFailed
from serve_app.models.load_family import load_family
from serve_app.requests.events import ResumePoint
from serve_app.requests.params import HiresParams
from tests.compare_images import pixels
from tests.conftest import tiny_config
from tests.engine.spied import Spied
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, half_mask, photo

PARAMS: dict[str, dict[str, Any]] = {
    "memory": {"sampler": "dpmpp_2m", "scheduler": "karras", "num_inference_steps": 7},
    "noise": {"sampler": "euler_a", "num_inference_steps": 6},
    "two calls a step": {"sampler": "heun", "num_inference_steps": 4},
    "four slots": {"sampler": "pndm", "num_inference_steps": 6},
    "a variation": {"sampler": "dpmpp_2m_sde", "subseed": 9, "subseed_strength": 0.3},
    "an image": {"sampler": "euler_a", "num_inference_steps": 8, "image": as_file(photo()), "strength": 0.6},
    "a mask": {"num_inference_steps": 5, "image": as_file(photo()), "mask": as_file(half_mask())},
    "a second pass": {"sampler": "euler_a", "hires": HiresParams(scale=1.5, num_inference_steps=5)},
    "a second pass of latents": {"sampler": "euler_a", "hires": HiresParams(scale=1.5, upscaler="latent")},
}


def new_engine(source: Path) -> tuple[Engine, Spied]:
    """An engine that tells a resume point at every step."""
    config = tiny_config(source, resume_interval_s=1e-9, deterministic=True, bucket_rows=2)
    family: Any = Spied(load_family(config))
    engine = Engine(family, config)
    family.forget()
    return engine, family


@pytest.mark.parametrize("name", PARAMS)
def test_the_rest_is_drawn_elsewhere_to_the_same_image(tiny_sd: Path, name: str) -> None:
    saved: list[ResumePoint] = []
    engine, family = new_engine(tiny_sd)
    with engine:
        asked = request(engine, seed=3, **PARAMS[name])
        whole = pixels(engine.submit(asked, callbacks=Callbacks(on_resume_point=saved.append)).result(60))
        calls = len(family.batches)
    assert len(saved) >= calls - 2, "but after the last call of a pass"
    other, family = new_engine(tiny_sd)
    with other:
        for point in (saved[0], saved[len(saved) // 2], saved[-1]):
            family.forget()
            told: list[ResumePoint] = []
            drawn = pixels(
                other.submit(asked, callbacks=Callbacks(on_resume_point=told.append), resume_from=point).result(60)
            )
            assert np.array_equal(drawn, whole)
            assert told == saved[saved.index(point) + 1 :], "the same from there on, bit for bit"
            assert len(family.batches) < calls


@pytest.mark.parametrize("hires", [None, HiresParams(scale=1.5)])
def test_an_inpainting_unet_goes_on_too_or_starts_its_image_anew(tiny_inpaint: Path, hires: HiresParams | None) -> None:
    saved: list[ResumePoint] = []
    engine, _ = new_engine(tiny_inpaint)
    with engine:
        asked = request(engine, seed=3, num_inference_steps=4, hires=hires)
        whole = pixels(engine.submit(asked, callbacks=Callbacks(on_resume_point=saved.append)).result(60))
        for point in (saved[0], saved[-1]):
            assert np.array_equal(pixels(engine.submit(asked, resume_from=point).result(60)), whole)


def test_progress_goes_on_from_there(tiny_sd: Path) -> None:
    engine, _ = new_engine(tiny_sd)
    saved: list[ResumePoint] = []
    with engine:
        asked = request(engine, num_inference_steps=6)
        engine.submit(asked, callbacks=Callbacks(on_resume_point=saved.append)).result(60)
        steps: list[int] = []
        callbacks = Callbacks(on_progress=lambda progress: steps.append(progress.step))
        engine.submit(asked, callbacks=callbacks, resume_from=saved[2]).result(60)
    assert steps == [4, 5]


def test_a_resume_point_of_another_request_is_refused(tiny_sd: Path) -> None:
    engine, _ = new_engine(tiny_sd)
    saved: list[ResumePoint] = []
    with engine:
        engine.submit(request(engine, sampler="pndm"), callbacks=Callbacks(on_resume_point=saved.append)).result(60)
        with pytest.raises(GenerationFailed, match="a resume point of shape"):
            engine.submit(request(engine, sampler="euler"), resume_from=saved[0]).result(60)
