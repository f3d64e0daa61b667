"""Goodput: the highest rate at which at least 95% of the requests are done within a multiple of their solo time."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bodies import SIZES, draw_bodies
from load import Arrivals, Outcome, draw_arrivals, send_load

SHARE = 0.95
FACTORS = (3.0, 5.0)
"""The objectives: so many times a request's solo time."""

WINDOW_SECONDS = 30

START, UP, DOWN = 0.6, 1.3, 0.55
HIGHEST, LOWEST = 1.3, 0.15
"""Load, as a share of the saturated rate: where the search starts, its steps, its ends."""

SoloTimes = Mapping[tuple[int, bool], tuple[float, float]]
"""(side, guided) to the seconds of no step at all and of one step."""


@dataclass(frozen=True)
class Point:
    """One contender at one rate (requests/s): each request's latency over its solo time; inf where it failed."""

    contender: str
    pending: Arrivals
    rate: float
    slowdowns: tuple[float, ...]
    seconds: tuple[float, ...]

    def attained(self, factor: float) -> float:
        """The share of requests within `factor` times their solo time."""
        return sum(slowdown <= factor for slowdown in self.slowdowns) / len(self.slowdowns)


def measure_solo(url: str) -> SoloTimes:
    """Solo times at one server, alone: medians of three at 4 and 20 steps, and a line through them."""

    def alone(side: int, scale: float, steps: int) -> float:
        body: dict[str, Any] = {"prompt": "red apple", "sampler": "euler", "scheduler": "automatic", "seed": 0}
        body |= {"width": side, "height": side, "guidance_scale": scale, "num_inference_steps": steps}
        return statistics.median(send_load(url, [body], [0.0])[0].seconds for _ in range(3))

    found = {}
    for side in sorted(set(SIZES)):
        for guided in (False, True):
            few, many = (alone(side, 5.0 if guided else 1.0, steps) for steps in (4, 20))
            found[side, guided] = (few - (many - few) / 4, (many - few) / 16)
    return found


def solo_seconds(solo: SoloTimes, body: Mapping[str, Any]) -> float:
    """What one request takes alone."""
    base, step = solo[body["width"], body["guidance_scale"] > 1]
    return base + step * body["num_inference_steps"]


def measure_point(name: str, url: str, kind: Arrivals, rate: float, solo: SoloTimes, least: int) -> Point:
    """One contender at one rate, for `WINDOW_SECONDS` and at least so many requests: a queue needs time to build up."""
    count = max(least, round(rate * WINDOW_SECONDS))
    bodies = draw_bodies(count, seed=7)
    outcomes = send_load(f"{url}/txt2img/", bodies, draw_arrivals(kind, rate, count))
    return make_point(name, kind, rate, outcomes, [solo_seconds(solo, body) for body in bodies])


def make_point(name: str, kind: Arrivals, rate: float, outcomes: Sequence[Outcome], solo: Sequence[float]) -> Point:
    """Latencies beside solo times."""
    seconds = [outcome.seconds if outcome.status == 200 else math.inf for outcome in outcomes]
    slowdowns = tuple(spent / alone for spent, alone in zip(seconds, solo, strict=True))
    return Point(name, kind, rate, slowdowns, tuple(seconds))


def search(at: Callable[[float], Point]) -> list[Point]:
    """Growing shares of capacity while the loosest objective holds, then falling ones until the tightest does."""
    share = START
    points = [at(share)]
    while points[-1].attained(max(FACTORS)) >= SHARE and share * UP <= HIGHEST:
        share *= UP
        points.append(at(share))
    share = START
    while max(point.attained(min(FACTORS)) for point in points) < SHARE and share * DOWN >= LOWEST:
        share *= DOWN
        points.append(at(share))
    return sorted(points, key=lambda point: point.rate)


def goodput(points: Sequence[Point], factor: float) -> float:
    """Requests/s: between the last point that holds and the next, by line; 0 where none holds.

    `points` are one contender's, by growing rate.
    """
    holding = [index for index, point in enumerate(points) if point.attained(factor) >= SHARE]
    if not holding:
        return 0.0
    last = points[holding[-1]]
    if holding[-1] + 1 == len(points):
        return last.rate
    following = points[holding[-1] + 1]
    spare = (last.attained(factor) - SHARE) / (last.attained(factor) - following.attained(factor))
    return last.rate + spare * (following.rate - last.rate)
