"""What an engine tells of its load: images, seconds of work, and how long the work at hand has been running."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine.engine import Engine
from serve_app.engine.load_meter import LoadMeter, StepShape
from serve_app.engine.passes import Callbacks
from serve_app.engine.running_work import RunningWork
from serve_app.errors import Draining, NotReady
from serve_app.models.load_family import load_family
from serve_app.requests.events import ResumePoint
from serve_app.requests.params import HiresParams
from serve_app.requests.step_curve import StepCurve
from tests.conftest import tiny_config
from tests.engine.spied import Spied, hold
from tests.engine.test_hand_over import hold_decoding, wait_for
from tests.engine.tiny_requests import request
from tests.sample_images import as_file, photo

CURVE = StepCurve(size=(8, 8), seconds={1: 2.0, 3: 4.0}, max_rows=4)
"""A second, and one more for each row."""


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def meter(**params: Any) -> LoadMeter:
    return LoadMeter(CURVE, **{"bucket": None, "compiles": False, "stall_seconds": 120.0, **params})


def shape(rows: int, height: int = 8, width: int = 8, *tokens: int) -> StepShape:
    return StepShape((height, width), rows, frozenset(tokens or (77,)))


def test_a_step_may_take_eight_times_the_curve_and_ten_seconds_at_least() -> None:
    found = meter()
    assert found.step_limit(shape(4, 8, 8)) == 8 * 5.0
    assert found.step_limit(shape(1, 2, 2)) == 10.0
    assert found.step_limit(shape(4, 16, 8)) == 8 * 9.0


def test_the_limit_follows_the_slowdown_which_is_bounded() -> None:
    found = meter()
    assert found.slowdown == 1.0
    for _ in range(200):
        found.note_step(shape(4), 10.0)
    assert found.slowdown == pytest.approx(2.0)
    assert found.step_limit(shape(4, 8, 8)) == pytest.approx(2 * 8 * 5.0)
    for _ in range(200):
        found.note_step(shape(4), 1e6)
    assert found.slowdown == pytest.approx(16.0)
    for _ in range(200):
        found.note_step(shape(4), 0.0)
    assert found.slowdown == pytest.approx(0.25)


def test_one_slow_step_is_not_yet_a_slowdown() -> None:
    found = meter()
    found.note_step(shape(4), 1000.0)
    assert 1.0 < found.slowdown < 3.0


def test_an_executor_that_compiles_may_take_long_for_each_new_shape() -> None:
    found = meter(compiles=True)
    assert found.step_limit(shape(3, 8, 8)) == 120.0
    found.note_step(shape(3), 100.0)
    assert found.slowdown == 1.0, "compiling is no slowdown"
    assert found.step_limit(shape(4, 8, 8)) == 8 * 5.0, "as many rows as were compiled for 3"
    assert found.step_limit(shape(5, 8, 8)) == 120.0
    assert found.step_limit(shape(4, 8, 16)) == 120.0
    assert found.step_limit(shape(4, 8, 8, 154)) == 120.0
    assert found.step_limit(shape(4, 8, 8, 77, 154)) == 120.0


def test_a_padded_step_costs_whole_buckets() -> None:
    found = meter(bucket=4)
    assert found.step_seconds((8, 8), 2) == 5.0
    assert found.step_seconds((8, 8), 5) == 10.0


def test_work_ends_and_the_piece_nearest_its_limit_is_told() -> None:
    clock = Clock()
    work = RunningWork(stall_seconds=120.0, clock=clock)
    assert work.nearest_limit() == (0.0, 10.0)
    with work.during(50.0):
        clock.now += 8
        assert work.nearest_limit() == (8.0, 50.0)
        with work.during(10.0):
            clock.now += 3
            assert work.nearest_limit() == (3.0, 10.0)
            assert work.oldest_s() == 11.0
        assert work.nearest_limit() == (11.0, 50.0)
    assert work.nearest_limit() == (0.0, 10.0)
    assert work.oldest_s() == 0.0


def test_work_without_a_curve_is_judged_by_what_the_slowest_of_its_kind_took() -> None:
    clock = Clock()
    work = RunningWork(stall_seconds=120.0, clock=clock)
    with work.during_kind("decode", 2):
        assert work.nearest_limit() == (0.0, 120.0), "nothing is known yet"
        clock.now += 4
    with work.during_kind("decode", 6):
        assert work.nearest_limit() == (0.0, 8 * 6 * 2.0)
    with work.during_kind("encode", 6):
        assert work.nearest_limit() == (0.0, 120.0)


def test_work_is_what_the_open_images_still_take(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    assert engine.replica_load().images == 0
    assert engine.replica_load().work_s == 0.0
    cap, size = engine.curve.cap((8, 8)), (8, 8)
    full = engine.curve.seconds_of(size, cap)
    reached, go = hold(family)
    guided = engine.submit(request(engine, num_inference_steps=8))
    assert reached.wait(30)
    load = engine.replica_load()
    assert (load.images, load.curve) == (1, engine.curve)
    assert load.work_s == pytest.approx(8 * full * 2 / cap * load.slowdown)
    plain = engine.submit(request(engine, num_inference_steps=5, guidance_scale=1.0, sampler="euler"))
    load = engine.replica_load()
    assert load.images == 2
    assert load.work_s == pytest.approx((8 * 2 + 5) * full / cap * load.slowdown)
    go.set()
    guided.result(30), plain.result(30)
    assert (engine.replica_load().images, engine.replica_load().work_s) == (0, 0.0)


def test_a_second_pass_and_a_resumed_image_count_what_is_left(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    reached, go = hold(family)
    hires = HiresParams(scale=2.0, num_inference_steps=6, strength=1.0)
    future = engine.submit(request(engine, sampler="euler", num_inference_steps=3, guidance_scale=1.0, hires=hires))
    assert reached.wait(30)
    load, curve = engine.replica_load(), engine.curve
    per_row = [curve.seconds_of(size, curve.cap(size)) / curve.cap(size) for size in ((8, 8), (16, 16))]
    assert load.work_s == pytest.approx((3 * per_row[0] + 6 * per_row[1]) * load.slowdown)
    go.set()
    future.result(30)


def test_work_shrinks_with_each_step(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    seen: list[float] = []
    family.before_predict = lambda _: seen.append(engine.replica_load().work_s / engine.replica_load().slowdown)
    engine.submit(request(engine, num_inference_steps=4)).result(30)
    assert seen == pytest.approx([seen[0] * left / 4 for left in (4, 3, 2, 1)])


def test_a_step_that_hangs_shows(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    assert engine.replica_load().step_age_s == 0.0
    reached, go = hold(family)
    future = engine.submit(request(engine))
    assert reached.wait(30)
    time.sleep(0.3)
    began = time.monotonic()
    load = engine.replica_load()
    assert time.monotonic() - began < 0.1
    assert 0.3 <= load.step_age_s < 10
    assert load.step_limit_s == 10.0
    go.set()
    future.result(30)
    wait_for(lambda: engine.replica_load().step_age_s == 0.0)


def test_a_hand_over_that_hangs_shows(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    stepping, go = hold(family)
    telling, tell_on = threading.Event(), threading.Event()

    def stay(_: ResumePoint) -> None:
        telling.set()
        assert tell_on.wait(30)

    future = engine.submit(request(engine), callbacks=Callbacks(on_resume_point=stay))
    assert stepping.wait(30)
    engine.hand_over()
    go.set()
    assert telling.wait(30)
    time.sleep(0.1)
    load = engine.replica_load()
    assert (load.step_age_s >= 0.1, load.step_limit_s) == (True, 10.0)
    tell_on.set()
    with pytest.raises(Draining):
        future.result(30)


def test_a_decode_that_hangs_shows_and_in_time_is_unhealthy(tiny_sd: Path) -> None:
    config = tiny_config(tiny_sd, stall_seconds=0.5)
    family: Any = Spied(load_family(config))
    with Engine(family, config) as engine:
        reached, go = hold_decoding(family)
        future = engine.submit(request(engine, num_inference_steps=1))
        assert reached.wait(30)
        wait_for(lambda: engine.replica_load().step_age_s > 0.6)
        with pytest.raises(NotReady, match="has not moved"):
            engine.check_health()
        go.set()
        future.result(30)


@pytest.mark.parametrize("place", ["encode", "autoencoder"])
def test_encoding_that_hangs_shows(spied: tuple[Engine, Spied], place: str) -> None:
    engine, family = spied
    reached, go = threading.Event(), threading.Event()
    owner: Any = family if place == "encode" else family.autoencoder
    encode = owner.encode

    def wait(given: Any) -> Any:
        reached.set()
        assert go.wait(30)
        return encode(given)

    owner.encode = wait
    init = {} if place == "encode" else {"image": as_file(photo()), "strength": 0.5}
    future = engine.submit(request(engine, "never seen", **init))
    assert reached.wait(30)
    time.sleep(0.1)
    assert engine.replica_load().step_age_s >= 0.1
    go.set()
    future.result(30)
    wait_for(lambda: engine.replica_load().step_age_s == 0.0)


def test_a_slower_device_is_a_slowdown(spied: tuple[Engine, Spied]) -> None:
    engine, family = spied
    engine.submit(request(engine, num_inference_steps=30)).result(30)
    before = engine.replica_load().slowdown

    def dawdle(_: Any, output: torch.Tensor) -> torch.Tensor:
        time.sleep(0.05)
        return output

    family.spoil = dawdle
    engine.submit(request(engine, num_inference_steps=20)).result(30)
    assert engine.replica_load().slowdown > 1.5 * before
