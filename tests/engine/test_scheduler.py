"""The policy, without tensors."""

from dataclasses import dataclass

import pytest

from serve_app.engine.curve import StepCurve, measure
from serve_app.engine.scheduler import ArrivalOrder, Size


@dataclass(frozen=True, eq=False)
class FakeRow:
    name: str
    size: Size = (8, 8)
    model_rows: int = 2
    priority: int = 0


def names(scheduler: ArrivalOrder[FakeRow]) -> str:
    plan = scheduler.plan()
    return "".join(row.name for row in plan.rows) if plan else ""


def test_nothing_in_flight_is_no_plan() -> None:
    assert ArrivalOrder[FakeRow](lambda _: 4).plan() is None


def test_rows_fill_the_cap_in_order_of_arrival_and_the_next_moves_up() -> None:
    scheduler = ArrivalOrder[FakeRow](lambda _: 5)
    rows = [FakeRow("a"), FakeRow("b"), FakeRow("c"), FakeRow("d", model_rows=1)]
    for row in rows:
        scheduler.add(row)
    assert names(scheduler) == "ab", "c needs two rows; d may not overtake it"
    scheduler.discard(rows[0])
    assert names(scheduler) == "bcd"


def test_a_row_over_the_cap_still_gets_its_turn() -> None:
    scheduler = ArrivalOrder[FakeRow](lambda _: 1)
    scheduler.add(FakeRow("a"))
    assert names(scheduler) == "a"


def test_sizes_take_turns_however_many_rows_they_have() -> None:
    scheduler = ArrivalOrder[FakeRow](lambda _: 4)
    for name in "abcd":
        scheduler.add(FakeRow(name))
    scheduler.add(FakeRow("x", size=(16, 16)))
    scheduler.add(FakeRow("y", size=(8, 16)))
    assert [names(scheduler) for _ in range(6)] == ["ab", "x", "y", "ab", "x", "y"]


def test_discarding_twice_or_the_unknown_is_harmless() -> None:
    scheduler = ArrivalOrder[FakeRow](lambda _: 4)
    row = FakeRow("a")
    scheduler.add(row)
    scheduler.discard(row)
    scheduler.discard(row)
    assert scheduler.plan() is None


def test_the_cap_is_the_narrowest_batch_near_the_best_rate_scaled_by_pixels() -> None:
    curve = StepCurve((16, 16), {1: 1.0, 2: 1.1, 4: 1.3, 8: 2.6, 16: 5.2})
    assert curve.best_rows == 4
    assert curve.cap((16, 16)) == 4
    assert curve.cap((8, 8)) == 16
    assert curve.cap((64, 64)) == 2


def test_measuring_stops_where_memory_ends() -> None:
    def forward(rows: int) -> None:
        if rows > most:
            raise MemoryError

    most = 4
    assert set(measure(forward, (8, 8), patience=9).seconds) == {1, 2, 4}
    most = 0
    with pytest.raises(MemoryError):
        measure(forward, (8, 8))


def test_measuring_stops_where_wider_gains_nothing() -> None:
    widths: list[int] = []
    curve = measure(widths.append, (8, 8), most=4)
    assert set(curve.seconds) == {1, 2, 4}
    assert widths == [1, 1, 1, 2, 2, 2, 4, 4, 4]


def test_a_higher_priority_takes_the_next_step_first() -> None:
    scheduler = ArrivalOrder[FakeRow](lambda _: 4)
    for row in (FakeRow("a"), FakeRow("b"), FakeRow("c", priority=1)):
        scheduler.add(row)
    assert names(scheduler) == "ca"
