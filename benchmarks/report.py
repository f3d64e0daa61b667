"""What a run of `serving.py` found, as Markdown with two plots."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from bare import Profile, median_ratio
from goodput import FACTORS, SHARE, Point, goodput
from matplotlib.figure import Figure

OURS = "Darkroom"
NAIVE = "FastAPI + diffusers"
BATCHERS = ("Ray @serve.batch", "LitServe")
SERIAL = "OpenVINO GenAI"

Rounds = Mapping[str, Sequence[float]]
"""Contender to one figure for each round."""


@dataclass
class Measured:
    """Everything one run found.

    `capacity` holds images/s with everything waiting at once, by workload; `light` seconds of one request alone through
    HTTP, `bare` of the same UNet calls and decode without any server; `profile` where the engine's time goes.
    """

    setting: str
    capacity: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    light: dict[str, list[float]] = field(default_factory=dict)
    bare: list[float] = field(default_factory=list)
    profile: list[Profile] = field(default_factory=list)


def points_of(points: Sequence[Point], name: str, kind: str = "poisson") -> list[Point]:
    """One contender's, by growing rate."""
    return [point for point in points if (point.contender, point.pending) == (name, kind)]


def goodput_text(points: Sequence[Point], factor: float) -> str:
    """A bound where the highest rate that was tried still holds, or not even the lowest."""
    if not points:
        return "-"
    if not (found := goodput(points, factor)):
        return f"< {points[0].rate:.2f}"
    return f"{'≥ ' * (found == points[-1].rate)}{found:.2f}"


def goodput_ratio(ours: Sequence[Point], theirs: Sequence[Point], factor: float) -> str:
    """Ours over theirs; at least that, where theirs holds at no rate that was tried."""
    found = goodput(theirs, factor)
    ratio = goodput(ours, factor) / (found or theirs[0].rate)
    return f"{'≥ ' * (not found or goodput(ours, factor) == ours[-1].rate)}{ratio:.2f}"


def goals(found: Measured) -> list[tuple[str, str, str]]:
    """(what, measured, goal) of every goal that this run can tell."""
    mixed = found.capacity["mixed"]
    rows = [("C1 saturated images/s / FastAPI + diffusers", f"{median_ratio(mixed[OURS], mixed[NAIVE]):.2f}", "≥ 4")]
    for workload, goal in (("64 px", "≥ 1.5"), ("128 px", "≥ 1.3")):
        rates = found.capacity[workload]
        measured = f"{median_ratio(rates[OURS], rates[SERIAL]):.2f}"
        rows.append((f"C2 saturated images/s / OpenVINO GenAI, {workload}", measured, goal))
    ours = points_of(found.points, OURS)
    for name in BATCHERS:
        measured = goodput_ratio(ours, points_of(found.points, name), FACTORS[0])
        rows.append((f"C3 goodput at SLO 3x / {name}", measured, "≥ 5"))
    step = statistics.median(profile.step_over_calls for profile in found.profile)
    rows.append(("C7 engine step / bare calls of the same rows", f"{step:.3f}", "≤ 1.01"))
    light = median_ratio(found.light[OURS], found.bare)
    rows.append(("C13 light load: P50 through HTTP / bare executor", f"{light:.3f}", "≤ 1.05"))
    return rows


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [" | ".join(row) for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def main_table(found: Measured) -> str:
    """Every contender: saturated rates as ratios to the naive server, goodput as such, latency over solo time."""
    names = list(found.capacity["mixed"])
    rows = []
    for name in names:
        cells = [f"{median_ratio(rates[name], rates[NAIVE]):.2f}" for rates in found.capacity.values()]
        for kind in sorted({point.pending for point in found.points}, reverse=True):
            points = points_of(found.points, name, kind)
            cells += [goodput_text(points, factor) for factor in FACTORS]
        rows.append([name, *cells])
    kinds = sorted({point.pending for point in found.points}, reverse=True)
    header = ["", *(f"{workload}, images/s / naive" for workload in found.capacity)]
    return table([*header, *(f"goodput/s at {factor:g}x, {kind}" for kind in kinds for factor in FACTORS)], rows)


def points_table(points: Sequence[Point]) -> str:
    """Every rate that was tried."""
    rows = []
    for point in points:
        ordered = sorted(point.slowdowns)
        shares = [f"{point.attained(factor):.0%}" for factor in FACTORS]
        late = [f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.1f}" for share in (0.5, 0.95, 0.99)]
        rows.append([point.contender, point.pending, f"{point.rate:.2f}", str(len(ordered)), *shares, *late])
    header = ["", "pending", "requests/s", "requests", "within 3x", "within 5x", "P50", "P95", "P99"]
    return table(header, rows)


def plot(found: Measured, folder: Path) -> None:
    """`saturated.png` and `goodput.png`."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    names = list(found.capacity["mixed"])
    for index, name in enumerate(names):
        heights = [median_ratio(rates[name], rates[NAIVE]) for rates in found.capacity.values()]
        axes.bar([place + 0.16 * index for place in range(len(heights))], heights, 0.15, label=name)
    axes.set_xticks([place + 0.32 for place in range(len(found.capacity))], list(found.capacity))
    axes.set_ylabel("saturated images/s / naive")
    axes.legend()
    figure.savefig(folder / "saturated.png", dpi=120)
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(point.contender for point in found.points):
        points = points_of(found.points, name)
        axes.plot([point.rate for point in points], [point.attained(FACTORS[0]) for point in points], "o-", label=name)
    axes.axhline(SHARE, color="grey", linewidth=0.8)
    axes.set(xscale="log", xlabel="requests/s, Poisson pending", ylabel="share within 3x solo time")
    axes.legend()
    figure.savefig(folder / "goodput.png", dpi=120)


def profile_text(profiles: Sequence[Profile]) -> str:
    """Where a saturated engine's time goes."""
    shares = {
        name: statistics.median(profile.seconds[name] / profile.busy for profile in profiles)
        for name in profiles[0].seconds
    }
    parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return f"{parts}, everything else {1 - sum(shares.values()):.1%} of the engine's step time."


def write_report(found: Measured, folder: Path) -> str:
    """`serving.md` and its plots in `folder`; returns the text."""
    folder.mkdir(parents=True, exist_ok=True)
    plot(found, folder)
    machine = f"{platform.machine()}, {torch.get_num_threads()} cores, torch {torch.__version__}"
    text = "\n\n".join(
        [
            "# Serving the built-in model: Darkroom and its peers",
            f"Written by `benchmarks/serving.py`. {machine}. {found.setting}.",
            "The mixed workload: 4 to 50 steps, four guidance scales, six samplers, 64 to 192 px. Contenders took "
            "turns in one run; figures are medians of the rounds. A request's solo time is the naive server's, alone.",
            "## The goals",
            table(["", "measured", "goal"], goals(found)),
            "## Saturated, and goodput",
            main_table(found),
            "![saturated rates](saturated.png)",
            "![share of requests in time, by rate](goodput.png)",
            "## Every rate that was tried",
            "P50, P95 and P99 are latencies from the scheduled pending over the request's solo time.",
            points_table(found.points),
            "## Where the engine's time goes",
            profile_text(found.profile),
        ]
    )
    (folder / "serving.md").write_text(text + "\n")
    return text
