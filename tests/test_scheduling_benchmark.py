"""The scheduling benchmark's simulation: it runs, and what it tells holds for every kind of device."""

import sys

import pytest

from tests.docs.blocks import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from simulated_ratios import FIXED, KEYED, OURS, SAME, SCHEDULERS, find_goodput, print_simulated, row_efficiency
from simulation import deadline_order, draw_images, run_engine
from step_curves import CURVES


def test_the_table_has_a_row_for_each_curve(capsys: pytest.CaptureFixture[str]) -> None:
    print_simulated(20, ["saturated"])
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == row.count("|")
    assert row.startswith("| saturated | 0.")


@pytest.mark.parametrize("name", CURVES)
def test_every_image_is_done_and_no_step_is_wider_than_its_cap(name: str) -> None:
    curve = CURVES[name]
    for scheduler_of in SCHEDULERS.values():
        images = draw_images(curve, [0.1 * place for place in range(30)])
        engine = run_engine(scheduler_of, curve, images)
        assert all(image.done_at is not None and image.calls_left == 0 for image in images)
        assert all(rows <= max(16, curve.cap(size)) for size, rows, _ in engine.steps)
        assert sum(rows for _, rows, _ in engine.steps) == sum(image.calls * image.model_rows for image in images)


@pytest.mark.parametrize("name", ["small UNet", "saturated"])
def test_deadline_order_holds_a_higher_rate_than_each_ablation(name: str) -> None:
    kept = {key: find_goodput(one, CURVES[name], (64, 128, 192), 120) for key, one in SCHEDULERS.items()}
    assert kept[OURS] > 1.8 * kept[KEYED]
    assert kept[OURS] > 1.8 * kept[SAME]
    assert kept[OURS] > 1.5 * kept[FIXED]


@pytest.mark.parametrize("name", CURVES)
def test_steps_are_as_wide_as_is_best_while_much_waits(name: str) -> None:
    assert row_efficiency(CURVES[name], 60) > 0.9


def test_the_ablations_share_batches_by_their_own_rules() -> None:
    curve = CURVES["small UNet"]
    images = draw_images(curve, [0.0] * 12, (128,))
    steps = {
        key: len(run_engine(one, curve, draw_images(curve, [0.0] * 12, (128,))).steps)
        for key, one in SCHEDULERS.items()
    }
    assert steps[OURS] == max(image.calls for image in images), "all share every step"
    assert steps[OURS] < steps[KEYED] < steps[SAME] == sum(image.calls for image in images)
    assert deadline_order is SCHEDULERS[OURS]
