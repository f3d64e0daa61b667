"""The engine as a library: joining, leaving, failing, stopping."""

import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine.engine import Engine
from serve_app.engine.passes import Callbacks
from serve_app.engine.scheduler import DeadlineOrder
from serve_app.errors import GenerationFailed, InvalidRequest, NotReady
from serve_app.models.cpu_threads import run_apart
from serve_app.models.load_family import load_family
from serve_app.models.model_family import DenoisingBatch
from serve_app.requests.events import Progress
from serve_app.requests.params import GenerationParams, HiresParams, Upscaler
from serve_app.requests.request import CallerContext
from tests.compare_images import difference, pixels
from tests.conftest import tiny_config
from tests.engine.spied import Spied, hold
from tests.engine.tiny_requests import request


def test_ten_lines_draw_an_image(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, max_rows=None)
    with Engine.load(config) as engine:
        [image] = engine.generate(GenerationParams(prompt="a cat", seed=7, num_inference_steps=3))
    assert pixels(image).shape == (64, 64, 3)
    assert (image.seed, image.media_type) == (7, "image/png")
    assert all(seconds >= 0 for seconds in image.timings.phases.values())
    assert set(engine.curve.seconds) >= {1, 2, 4}


def test_unlike_rows_share_a_forward_and_an_unguided_row_has_no_unconditional_row(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    first = engine.submit(request(engine, sampler="euler", num_inference_steps=6))
    assert reached.wait(30)
    late = engine.submit(request(engine, sampler="heun", num_inference_steps=3, guidance_scale=1.0))
    go.set()
    first.result(30), late.result(30)
    assert len(family.batches[0].latents) == 2
    assert len(family.batches[1].latents) == 3, "the late one joined at the next step"
    assert len(set(family.batches[1].timesteps.tolist())) == 2


def test_prompts_are_encoded_in_one_batch_and_remembered(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    futures = [engine.submit(request(engine, "first"))]
    assert reached.wait(30)
    futures += [engine.submit(request(engine, prompt)) for prompt in ("second", "third", "first")]
    go.set()
    [future.result(30) for future in futures]
    assert family.encoded == [2, 2], "two unknown prompts in one call; the negative one and 'first' were known"


def test_a_cancelled_request_frees_its_rows_before_the_next_step(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    doomed = engine.submit(request(engine, num_inference_steps=50))
    assert reached.wait(30)
    kept = engine.submit(request(engine, seed=5))
    assert doomed.cancel()
    go.set()
    kept.result(30)
    assert [len(batch.latents) for batch in family.batches[1:]] == [2] * 4, "only the one that stayed"
    assert (engine.counters.rows_in_flight, engine.counters.cancelled) == (0, 1)
    with pytest.raises(CancelledError):
        doomed.result()


def test_device_time_is_its_owners_finished_or_not(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    engine.device_time.take()
    reached, go = hold(family)
    doomed = engine.submit(
        request(engine, num_inference_steps=150), CallerContext(owner="quitter", counts_device_time=True)
    )
    assert reached.wait(30)
    image = engine.submit(request(engine), CallerContext(owner="stayer", counts_device_time=True))
    go.set()
    taken = image.result(30).timings.device
    doomed.cancel()
    deadline = time.monotonic() + 10
    while engine.counters.rows_in_flight:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found = engine.device_time.take()
    assert found.pop("stayer") == pytest.approx(taken)
    assert found.pop("quitter") > 0
    assert found == engine.device_time.take() == {}


def test_nan_latents_fail_their_own_request_alone(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    sound = engine.submit(request(engine, seed=1)).result(30)

    def poison(batch: DenoisingBatch, output: torch.Tensor) -> torch.Tensor:
        return torch.where((batch.timesteps > 990).view(-1, 1, 1, 1), torch.nan, output)

    family.spoil = poison
    bad = engine.submit(request(engine, scheduler="linear", num_inference_steps=7))
    good = engine.submit(request(engine, seed=1))
    assert difference(good.result(30), sound) <= 1
    with pytest.raises(GenerationFailed, match="not finite"):
        bad.result(30)


def test_an_exception_fails_its_own_row_alone(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    sound = engine.submit(request(engine, seed=1)).result(30)

    def refuse(batch: DenoisingBatch) -> None:
        if (batch.timesteps > 990).any():
            raise RuntimeError("no kernel for this one")

    family.before_predict = refuse
    bad = engine.submit(request(engine, scheduler="linear", num_inference_steps=7))
    good = engine.submit(request(engine, seed=1))
    assert difference(good.result(30), sound) <= 1
    with pytest.raises(GenerationFailed, match="no kernel for this one"):
        bad.result(30)
    engine.check_health()


def test_a_decode_that_fails_fails_its_own_request_alone(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, decode_batch=4)
    family = Spied(load_family(config))
    decode = family.autoencoder.decode
    seen: list[torch.Tensor] = []

    def watch(latents: torch.Tensor) -> torch.Tensor:
        seen.append(latents[0].clone())
        return decode(latents)

    def refuse(latents: torch.Tensor) -> torch.Tensor:
        assert len(latents) == 4, "one fixed batch size"
        if any(torch.allclose(row, seen[0], atol=1e-3) for row in latents):
            raise RuntimeError("no memory")
        return decode(latents)

    with Engine(family, config) as engine:
        sound = engine.submit(request(engine, seed=1)).result(30)
        family.autoencoder.decode = watch
        engine.submit(request(engine, seed=2)).result(30)
        family.autoencoder.decode = refuse
        futures = [engine.submit(request(engine, seed=seed)) for seed in (1, 2, 1)]
        assert difference(futures[0].result(30), sound) <= 1
        assert difference(futures[2].result(30), sound) <= 1
        with pytest.raises(GenerationFailed, match="no memory"):
            futures[1].result(30)


def test_a_progress_callback_that_raises_fails_its_own_request_alone(engine: Engine) -> None:
    def burst(_: Progress) -> None:
        raise ValueError("my own mistake")

    bad = engine.submit(request(engine), callbacks=Callbacks(on_progress=burst))
    assert engine.submit(request(engine)).result(30)
    with pytest.raises(GenerationFailed, match="my own mistake"):
        bad.result(30)


def test_progress_counts_model_calls(engine: Engine) -> None:
    seen: list[Progress] = []
    asked = request(engine, sampler="heun", num_inference_steps=4)
    engine.submit(asked, callbacks=Callbacks(on_progress=seen.append)).result(30)
    assert [(progress.step, progress.steps) for progress in seen] == [(step, 7) for step in range(1, 7)]
    assert all(progress.eta_s > 0 for progress in seen)


def test_a_short_request_of_another_size_goes_before_a_long_one(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd)
    family: Any = Spied(load_family(config))
    # A forward "takes" a minute: what this machine really takes is nothing beside it.
    with Engine(family, config, DeadlineOrder(lambda _: 8, lambda *_: 60.0)) as engine:
        family.forget()
        reached, go = hold(family)
        long = engine.submit(request(engine, num_inference_steps=8))
        assert reached.wait(30)
        short = engine.submit(request(engine, num_inference_steps=3, width=128, height=32))
        go.set()
        assert pixels(long.result(30)).shape[:2] == (64, 64)
        assert pixels(short.result(30)).shape[:2] == (32, 128)
    widths = [batch.latents.shape[-1] for batch in family.batches]
    assert widths == [8, *[16] * 3, *[8] * 7]


def test_an_inpainting_unet_refuses_to_enlarge_latents(tiny_inpaint: Path) -> None:
    config = tiny_config(tiny_inpaint)
    with Engine(load_family(config), config) as engine:
        hires = HiresParams(scale=1.5, upscaler="latent")
        with pytest.raises(InvalidRequest, match=r"hires\.upscaler: must be lanczos with an inpainting model"):
            engine.submit(request(engine, hires=hires))


@pytest.mark.parametrize("upscaler", [None, "lanczos", "latent"])
def test_the_timings_of_all_passes_add_up_to_what_the_caller_waits(
    spied: tuple[Engine, Spied], upscaler: Upscaler | None
) -> None:
    engine, family = spied
    family.before_predict = lambda _: time.sleep(0.1)
    hires = HiresParams(scale=1.5, strength=1.0, upscaler=upscaler) if upscaler else None
    asked = request(engine, hires=hires)
    run_apart(lambda: engine.table(asked))
    began = time.monotonic()
    timings = engine.submit(asked, CallerContext(traceparent="00-1-1-01")).result(30).timings
    waited = time.monotonic() - began
    assert len(timings.steps) == len(family.batches) == (8 if hires else 4)
    assert timings.denoise > 0.1 * len(family.batches)
    assert timings.device == pytest.approx(sum(step.seconds for step in timings.steps))
    assert min(timings.phases.values()) >= 0
    assert 0.7 * waited < timings.total <= waited, "a pass that is left out is half of it"


def test_what_the_sampler_or_the_vae_cannot_do_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="num_inference_steps"):
        engine.submit(request(engine, sampler="lcm", num_inference_steps=100))


def test_close_finishes_what_is_in_flight_and_takes_no_more(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd)
    engine = Engine(load_family(config), config)
    futures = [engine.submit(request(engine, seed=seed)) for seed in range(5)]
    engine.close()
    assert all(future.done() for future in futures)
    with pytest.raises(NotReady):
        engine.submit(request(engine))
    with pytest.raises(NotReady, match="denoise thread has ended"):
        engine.check_health()


def test_a_stuck_engine_is_unhealthy(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, stall_seconds=0.2)
    family = Spied(load_family(config))
    with Engine(family, config) as engine:
        reached, go = hold(family)
        future = engine.submit(request(engine))
        assert reached.wait(30)
        threading.Event().wait(0.4)
        with pytest.raises(NotReady, match="has not moved"):
            engine.check_health()
        go.set()
        future.result(30)
        family.before_predict = lambda _: None
        engine.submit(request(engine)).result(30)


def test_closing_waits_for_what_is_in_flight_but_not_for_what_is_cancelled_meanwhile(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd)
    engine = Engine(load_family(config), config)
    kept, dropped = (engine.submit(request(engine, num_inference_steps=100, seed=seed)) for seed in (1, 2))
    closing = threading.Thread(target=engine.close)
    closing.start()
    dropped.cancel()
    assert kept.result(60).seed == 1
    closing.join(10)
    assert not closing.is_alive()


class Noting(DeadlineOrder[Any]):
    """Notes when the request of each planned row arrived, and which of its model calls is next."""

    def __init__(self) -> None:
        super().__init__(lambda _: 8, lambda *_: 1.0)
        self.arrivals: list[tuple[float, int]] = []

    def plan(self) -> Any:
        found = super().plan()
        if found is not None:
            self.arrivals += [(row.arrived, row.calls_left) for row in found.rows]
        return found


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_a_second_pass_keeps_the_deadline_of_its_request(tiny_sd: Path, upscaler: str) -> None:
    config, order = tiny_config(tiny_sd), Noting()
    with Engine(load_family(config), config, order) as engine:
        hires = {"scale": 2.0, "upscaler": upscaler}
        engine.submit(request(engine, num_inference_steps=3, hires=hires)).result(30)
    assert [left for _, left in order.arrivals] == list(range(5, 0, -1)), "three calls, and two of the second pass"
    assert len({arrived for arrived, _ in order.arrivals}) == 1
