"""What a wider batch can gain on this machine: the UNet alone, by executor, size and rows, and what follows from it.

    python benchmarks/rows.py [--repeats 15] [--dtype bfloat16]

The gains are those of the serving benchmark's workloads in UNet calls alone: one request at a time, over requests that
wait at once and share steps as the engine's scheduler lets them. No server, decode or sampler is in them.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bodies import SIZES, draw_bodies

from serve_app.config import ModelConfig
from serve_app.engine.scheduler import DeadlineOrder
from serve_app.models.cpu_threads import claim_cores, run_apart
from serve_app.models.denoisers.choose_executor import torch_cores
from serve_app.models.load_family import load_family
from serve_app.models.model_family import Conditioning, DenoisingBatch, ModelFamily, Prompt

EXECUTORS = ("eager", "openvino")
SIDES, ROWS = (64, 128, 192, 256), (1, 2, 8, 16, 32)

Curve = Mapping[tuple[int, int], float]
"""(side in pixels, rows) to milliseconds a row."""


def batch_of(family: ModelFamily, state: Conditioning, side: int, rows: int) -> DenoisingBatch:
    """Noise, of that size."""
    side //= family.autoencoder.scale_factor
    latents = torch.randn(rows, family.autoencoder.latent_channels, side, side)
    return DenoisingBatch(latents, torch.full((rows,), 500.0), torch.ones(rows), [state] * rows)


class Subject:
    """One executor's family, and the batches to time it with."""

    def __init__(self, executor: str, dtype: str) -> None:
        settings = {"source": "builtin:emoji", "native_size": 256, "dtype": dtype, "executor": executor}
        config = ModelConfig.model_validate(settings)
        self.cores = torch_cores(config)
        self.family = run_apart(lambda: load_family(config))
        self.batches = run_apart(self._make_batches)

    def _make_batches(self) -> dict[tuple[int, int], DenoisingBatch]:
        with torch.inference_mode():
            state = self.family.encode([self.family.tokenize(Prompt("red apple on a blue background"))])[0]
            return {(side, rows): batch_of(self.family, state, side, rows) for side in SIDES for rows in ROWS}

    def time_calls(self) -> Curve:
        """Each batch once."""
        claim_cores(self.family.device, self.cores)
        with torch.inference_mode():
            self.family.predict(self.batches[SIDES[0], ROWS[0]])
            return {key: self._time_call(batch) / key[1] * 1e3 for key, batch in self.batches.items()}

    def _time_call(self, batch: DenoisingBatch) -> float:
        start = time.perf_counter()
        self.family.predict(batch)
        return time.perf_counter() - start


def measure(dtype: str, repeats: int) -> dict[str, Curve]:
    """Executor to its medians; executors, sizes and rows take turns. The first round warms up."""
    subjects = {executor: Subject(executor, dtype) for executor in EXECUTORS}
    rounds = [{name: run_apart(one.time_calls) for name, one in subjects.items()} for _ in range(repeats + 1)]
    return {
        name: {key: statistics.median(found[name][key] for found in rounds[1:]) for key in subject.batches}
        for name, subject in subjects.items()
    }


@dataclass(eq=False)
class Waiting:
    """A request of the workload, as far as the engine's scheduler sees it."""

    side: int
    model_rows: int
    calls: int
    calls_left: int
    arrived: float = 0.0
    is_batch: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """For the batch cap."""
        return self.side, self.side

    @property
    def group(self) -> int:
        """What one forward needs equal."""
        return self.side


def draw_waiting(count: int, sizes: Sequence[int]) -> list[Waiting]:
    """The workload's first `count` requests."""
    return [
        Waiting(one["width"], 1 + (one["guidance_scale"] > 1), one["num_inference_steps"], one["num_inference_steps"])
        for one in draw_bodies(count, sizes)
    ]


def one_by_one(requests: Sequence[Waiting], curve: Curve) -> float:
    """Milliseconds of UNet calls, each request alone."""
    return sum(one.calls * one.model_rows * curve[one.side, one.model_rows] for one in requests)


def together(requests: Sequence[Waiting], curve: Curve) -> float:
    """Milliseconds of UNet calls, all waiting at once, as the engine's scheduler batches them."""
    order = DeadlineOrder[Waiting](lambda _: ROWS[-1], lambda *_: 0.0)
    for request in requests:
        order.add(request)
    spent = 0.0
    while plan := order.plan():
        rows, side = sum(row.model_rows for row in plan.rows), plan.rows[0].side
        spent += float(np.interp(rows, ROWS, [width * curve[side, width] for width in ROWS]))
        for row in plan.rows:
            row.calls_left -= 1
            if not row.calls_left:
                order.discard(row)
    return spent


def at_best(requests: Sequence[Waiting], curve: Curve) -> float:
    """Milliseconds of UNet calls, every row at its best width."""
    return sum(one.calls * one.model_rows * min(curve[one.side, width] for width in ROWS) for one in requests)


def print_gains(curves: Mapping[str, Curve]) -> None:
    """OpenVINO in wide batches over either executor with one request at a time."""
    workloads = {"mixed": SIZES, **{f"{side} px": (side,) for side in SIDES}}
    print("\n| alone on | requests at once | " + " | ".join(workloads) + " |")
    print("|---" * (len(workloads) + 2) + "|")
    for name, serial in curves.items():
        for label, count, spend in (("24", 24, together), ("96", 96, together), ("unlimited", 200, at_best)):
            waiting = [draw_waiting(count, sizes) for sizes in workloads.values()]
            gains = [one_by_one(some, serial) / spend(some, curves["openvino"]) for some in waiting]
            print(f"| {name} | {label} | " + " | ".join(f"{gain:.2f}" for gain in gains) + " |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    curves = measure(options.dtype, options.repeats)
    print("| executor | side | " + " | ".join(f"{rows} rows, ms per row" for rows in ROWS) + " |")
    print("|---" * (len(ROWS) + 2) + "|")
    for executor, curve in curves.items():
        for side in SIDES:
            print(f"| {executor} | {side} px | " + " | ".join(f"{curve[side, rows]:.1f}" for rows in ROWS) + " |")
    print_gains(curves)


if __name__ == "__main__":
    main()
