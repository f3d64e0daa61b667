"""C4, C5, C6 and C14 of the scheduler in simulated time, over step curves of unlike devices."""

from collections.abc import Callable, Mapping, Sequence

from ablations import FixedWidth, KeyedFifo, SameParameters
from bodies import SIZES
from load import draw_arrivals
from simulation import (
    SchedulerOf,
    capacity,
    deadline_order,
    draw_images,
    quantile,
    run_engine,
    slowdowns,
)
from step_curves import CURVES

from serve_app.requests.step_curve import StepCurve

SHARE, FACTOR = 0.95, 3.0
"""Goodput: the highest rate at which this share of the images is done within so many times their solo seconds."""
MOST_LOAD, HALVINGS = 0.9, 6
"""The search begins between no load and this share of the capacity; its result is exact to a 70th of that."""
BELOW_SATURATION = 0.3
"""The load for C6, as a share of the capacity."""
ONE_SIZE = (128,)
OURS, KEYED, SAME, FIXED = "Darkroom", "keyed FIFO", "same parameters", "fixed 16 rows"

SCHEDULERS: Mapping[str, SchedulerOf] = {
    OURS: deadline_order,
    KEYED: lambda _, curve: KeyedFifo(curve.cap, lambda row: (row.size, row.guidance_scale)),
    SAME: lambda _, curve: SameParameters(curve.cap, lambda row: (row.size, row.parameters)),
    FIXED: lambda *_: FixedWidth(16),
}
"""Name to scheduler. All but the first are ablations; they get the best width of the curve where they choose one."""


def find_goodput(scheduler_of: SchedulerOf, curve: StepCurve, sizes: Sequence[int], count: int) -> float:
    """Images/s, by halving."""
    most = capacity(curve, sizes)

    def is_kept(rate: float) -> bool:
        images = draw_images(curve, draw_arrivals("poisson", rate, count, seed=3), sizes)
        run_engine(scheduler_of, curve, images)
        return sum(one <= FACTOR for one in slowdowns(images, curve)) >= SHARE * count

    return highest(is_kept, MOST_LOAD * most, HALVINGS)


def highest(is_kept: Callable[[float], bool], most: float, halvings: int) -> float:
    """The highest rate below `most` that is kept, where lower ones are kept as well."""
    low, high = 0.0, most
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if is_kept(middle) else (low, middle)
    return low


def first_step_wait(curve: StepCurve, sizes: Sequence[int], count: int) -> float:
    """C6: the P99 from arrival to first step, over the P99 of the steps."""
    rate = BELOW_SATURATION * capacity(curve, sizes)
    images = draw_images(curve, draw_arrivals("poisson", rate, count, seed=5), sizes)
    engine = run_engine(deadline_order, curve, images)
    waits = [image.first_step_at - image.due for image in images if image.first_step_at is not None]
    return quantile(waits, 0.99) / quantile([seconds for _, _, seconds in engine.steps], 0.99)


def row_efficiency(curve: StepCurve, count: int) -> float:
    """C14: the seconds that rows take at their best width, over those that they took while much waited.

    All images wait at once; the first half of the steps counts.
    """
    engine = run_engine(deadline_order, curve, draw_images(curve, [0.0] * count))
    steps = engine.steps[: len(engine.steps) // 2]
    best = sum(rows * curve.seconds_of(size, curve.cap(size)) / curve.cap(size) for size, rows, _ in steps)
    return best / sum(seconds for _, _, seconds in steps)


def print_simulated(count: int, names: Sequence[str] = tuple(CURVES)) -> None:
    """A row for each curve. C4 and C14 are of mixed sizes; C5 is of the model's own size alone, C6 of either."""
    others = (KEYED, SAME, FIXED)
    print("| simulated device | goodput / capacity | " + " | ".join(f"C4 / {name}" for name in others), end="")
    print(" | C5 / fixed 16 rows | C6, one size | C6, mixed | C14 |\n" + "|---" * (len(others) + 6) + "|")
    for name in names:
        curve = CURVES[name]
        mixed = {key: find_goodput(one, curve, SIZES, count) for key, one in SCHEDULERS.items()}
        alone = {key: find_goodput(SCHEDULERS[key], curve, ONE_SIZE, count) for key in (OURS, FIXED)}
        cells = [f"{mixed[OURS] / capacity(curve):.2f}"]
        cells += [as_ratio(mixed[OURS], mixed[other]) for other in others]
        cells += [as_ratio(alone[OURS], alone[FIXED])]
        cells += [f"{first_step_wait(curve, sizes, count):.2f}" for sizes in (ONE_SIZE, SIZES)]
        cells += [f"{row_efficiency(curve, count):.2f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def as_ratio(ours: float, other: float) -> str:
    """To two places; a dash where the other holds no rate at all."""
    return f"{ours / other:.2f}" if other else "-"
