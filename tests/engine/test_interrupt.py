"""Interrupting an image: the model's current estimate is decoded, and the other images do not change."""

import torch

from serve_app.engine.engine import Engine
from serve_app.models.model_family import DenoisingBatch
from serve_app.requests.params import HiresParams
from tests.compare_images import difference, pixels
from tests.engine.spied import Spied, hold
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, half_mask, photo


def test_the_next_step_is_the_last_and_its_clean_latents_are_decoded(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    alone = engine.submit(request(engine, seed=5)).result(30)
    outputs: list[torch.Tensor] = []
    exposed: list[torch.Tensor] = []
    decode = family.autoencoder.decode

    def keep(_: DenoisingBatch, output: torch.Tensor) -> torch.Tensor:
        outputs.append(output.clone())
        return output

    def watch(latents: torch.Tensor) -> torch.Tensor:
        exposed.append(latents[0].clone())
        return decode(latents)

    family.forget()
    family.spoil, family.autoencoder.decode = keep, watch
    reached, go = hold(family)
    asked = request(engine, sampler="euler", num_inference_steps=50, guidance_scale=1.0)
    short = engine.submit(asked)
    assert reached.wait(30)
    whole = engine.submit(request(engine, seed=5))
    assert short.interrupt()
    go.set()
    assert short.result(30).seed == 0
    assert difference(whole.result(30), alone) <= 1
    assert [len(batch.latents) for batch in family.batches] == [1, 2, 2, 2, 2], "one step, then only the other"
    table = engine.table(asked)
    first = family.batches[0]
    latents = first.latents[0] / float(table.input_scale[0])
    assert torch.allclose(exposed[0], table.denoise(0, latents, outputs[0][0]), atol=1e-4)
    assert not short.interrupt(), "it is done"


def test_a_second_pass_is_left_out_but_the_file_has_its_size(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    future = engine.submit(request(engine, num_inference_steps=50, hires=HiresParams(scale=2.0)))
    assert reached.wait(30)
    future.interrupt()
    go.set()
    assert pixels(future.result(30)).shape == (128, 128, 3)
    assert len(family.batches) == 1


def test_what_a_mask_keeps_is_kept(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    given = {"image": as_file(photo()), "mask": as_file(half_mask()), "strength": 1.0}
    exposed: list[torch.Tensor] = []
    decode = family.autoencoder.decode

    def watch(latents: torch.Tensor) -> torch.Tensor:
        exposed.append(latents[0].clone())
        return decode(latents)

    family.autoencoder.decode = watch
    engine.submit(request(engine, num_inference_steps=2, **given)).result(30)
    reached, go = hold(family)
    future = engine.submit(request(engine, num_inference_steps=50, **given))
    assert reached.wait(30)
    future.interrupt()
    go.set()
    future.result(30)
    whole, short = exposed
    half = whole.shape[-1] // 2
    assert torch.allclose(short[..., :half], whole[..., :half], atol=1e-5), "the init image's own latents"
    assert not torch.allclose(short[..., half:], whole[..., half:], atol=1e-1)
