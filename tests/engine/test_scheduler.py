"""The policy, without tensors."""

from dataclasses import dataclass

import pytest

from serve_app.engine.scheduler import PATIENCE, DeadlineOrder, Size
from serve_app.engine.step_latency import time_doublings
from serve_app.requests.step_curve import StepCurve


@dataclass(frozen=True, eq=False)
class FakeRow:
    name: str
    size: Size = (8, 8)
    model_rows: int = 2
    is_batch: bool = False
    arrived: float = 0.0
    calls: int = 10
    calls_left: int = 10
    prompt_length: int = 0

    @property
    def group(self) -> tuple[Size, int]:
        return self.size, self.prompt_length


def order(cap: int, *rows: FakeRow, now: float = 0.0) -> DeadlineOrder[FakeRow]:
    """A forward takes a second for each 64 latent pixels, however many rows it has."""
    scheduler = DeadlineOrder[FakeRow](lambda _: cap, lambda size, _: size[0] * size[1] / 64, lambda: now)
    for row in rows:
        scheduler.add(row)
    return scheduler


def names(scheduler: DeadlineOrder[FakeRow]) -> str:
    plan = scheduler.plan()
    return "".join(row.name for row in plan.rows) if plan else ""


def test_nothing_in_flight_is_no_plan() -> None:
    assert order(4).plan() is None


def test_equal_rows_fill_the_cap_in_order_of_arrival_and_the_next_moves_up() -> None:
    rows = [FakeRow("a"), FakeRow("b"), FakeRow("c"), FakeRow("d", model_rows=1)]
    scheduler = order(5, *rows)
    assert names(scheduler) == "ab", "c needs two rows; d may not overtake it"
    scheduler.discard(rows[0])
    assert names(scheduler) == "bcd"


def test_a_row_over_the_cap_still_gets_its_turn() -> None:
    assert names(order(1, FakeRow("a"))) == "a"


def test_the_earliest_deadline_goes_first_and_its_size_fills_the_batch() -> None:
    long = FakeRow("l", calls=50, calls_left=50)
    short = FakeRow("s", arrived=1.0, calls=4, calls_left=4)
    other = FakeRow("o", size=(16, 16), arrived=1.0, calls=4, calls_left=4)
    assert names(order(4, long, short, other, now=1.0)) == "sl"
    assert names(order(2, long, short, other, now=1.0)) == "s"
    assert names(order(4, long, other, now=1.0)) == "o"


def test_the_late_give_way_to_those_that_can_be_in_time() -> None:
    late = FakeRow("l", calls=10, calls_left=10)
    timely = FakeRow("t", arrived=25.0, calls=10, calls_left=10)
    assert names(order(2, late, timely, now=19.0)) == "l", "its deadline is 30, and it can still be met"
    assert names(order(2, late, timely, now=25.0)) == "l", "the next is 50, before 55"
    assert names(order(2, late, timely, now=41.0)) == "t", "the one after it 80"


def test_however_many_come_no_row_starves() -> None:
    """A small one comes each second, which is all there is time for; still the large one is served in the end."""
    large = FakeRow("L", size=(16, 16))
    for now in range(1000):
        small = FakeRow("s", arrived=float(now), calls=1, calls_left=1)
        if names(order(2, large, small, now=float(now))) == "L":
            break
    else:
        pytest.fail("the large one never got a step")
    assert now > 10 * 4 * max(PATIENCE) - 10


def test_discarding_twice_or_the_unknown_is_harmless() -> None:
    row = FakeRow("a")
    scheduler = order(4, row)
    scheduler.discard(row)
    scheduler.discard(row)
    assert scheduler.plan() is None


def test_a_step_costs_by_pixels_on_top_of_what_any_step_does() -> None:
    curve = StepCurve(size=(16, 16), seconds={1: 1.5, 2: 2.0, 4: 3.0})
    assert curve.seconds_of((16, 16), 2) == pytest.approx(2.0)
    assert curve.seconds_of((8, 8), 4) == pytest.approx(1.5)
    assert curve.seconds_of((32, 32), 1) == pytest.approx(3.0)
    assert StepCurve(size=(16, 16), seconds={1: 1.5}).seconds_of((8, 8), 7) == pytest.approx(1.5)


def test_the_cap_is_the_narrowest_batch_near_the_best_rate_scaled_by_pixels() -> None:
    seconds = {1: 1.0, 2: 1.1, 4: 1.3, 8: 2.6, 16: 5.2}
    curve = StepCurve(size=(16, 16), seconds=seconds)
    assert curve.best_rows == 4
    assert curve.cap((16, 16)) == 4
    assert curve.cap((8, 8)) == 16
    assert curve.cap((64, 64)) == 2
    assert StepCurve(size=(16, 16), seconds=seconds, max_rows=5).cap((8, 8)) == 5, "as configured"


def test_measuring_stops_where_memory_ends() -> None:
    def forward(rows: int) -> None:
        if rows > most:
            raise MemoryError

    most = 4
    assert set(time_doublings(forward, patience=9)) == {1, 2, 4}
    most = 0
    with pytest.raises(MemoryError):
        time_doublings(forward)


def test_measuring_stops_where_wider_gains_nothing() -> None:
    widths: list[int] = []
    assert set(time_doublings(widths.append, most=4)) == {1, 2, 4}
    assert widths == [1, 1, 1, 2, 2, 2, 4, 4, 4]


def test_the_class_batch_gives_way() -> None:
    assert names(order(4, FakeRow("a", is_batch=True), FakeRow("b"), FakeRow("c"))) == "bc"
