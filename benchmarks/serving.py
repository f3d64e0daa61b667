"""Darkroom against every other way to serve the same model over HTTP, in one run on one machine.

The talk's FastAPI + diffusers, Ray's `@serve.batch` and LitServe over equal parameters, OpenVINO GenAI behind FastAPI;
all up at once, loaded in turns by an open-loop generator in its own process.

    pip install -c constraints.txt -e '.[dev,bench]'
    python benchmarks/serving.py [--requests 40] [--rounds 2] [--executor openvino] [--results benchmarks/results]

Prints the ratios C1, C2, C3, C7 and C13 and writes them with plots into `--results`.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bare import draw_bare, profile_engine
from bodies import SIZES, draw_bodies, draw_staircase
from contenders import Contender, run_contenders
from goodput import measure_point, measure_solo, search
from load import Arrivals, send_load
from report import NAIVE, OURS, Measured, write_report

WORKLOADS: Mapping[str, tuple[int, ...]] = {"mixed": SIZES, "64 px": (64,), "128 px": (128,), "256 px": (256,)}
"""Name to its sizes; 256 px is where a wider batch gains least."""

ARRIVALS: tuple[Arrivals, ...] = ("poisson", "gamma")
# Above its native size a model draws at that size and enlarges, which the peers do not: here all is drawn as asked.
MODEL = {"source": "builtin:emoji", "native_size": 256}
MODEL |= {"engine": {"max_rows": 32}}

WARM_UPS = 2
"""Bare draws before the first that counts: a process's first ones take several times as long."""

LIGHT = {"prompt": "red apple on a blue background", "num_inference_steps": 50, "guidance_scale": 5.0}
LIGHT |= {"sampler": "euler", "scheduler": "automatic", "width": 192, "height": 192, "seed": 0}


def saturated(contender: Contender, sizes: Sequence[int], count: int, seed: int) -> float:
    """Images/s with everything waiting at once. Raises RuntimeError where a request fails."""
    bodies = draw_bodies(count, sizes, seed)
    with contender.alone():
        outcomes = send_load(f"{contender.url}/txt2img/", bodies, [0.0] * count)
    if any(outcome.status != 200 for outcome in outcomes):
        raise RuntimeError(f"{contender.name} answered {sorted({outcome.status for outcome in outcomes})}")
    return count / max(outcome.seconds for outcome in outcomes)


def warm_up(contender: Contender, count: int) -> None:
    """Every size that is going to be asked for, in every width that ours is going to give it.

    OpenVINO compiles each width of each size at its first use; the peers always give it the same few.
    """
    saturated(contender, (*SIZES, 256), count, seed=99)
    for side in sorted({side for sizes in WORKLOADS.values() for side in sizes}):
        bodies = draw_staircase(side, 32 if contender.name == OURS else 2)
        with contender.alone():
            send_load(f"{contender.url}/txt2img/", bodies, [0.0] * len(bodies))


def measure_round(contenders: Sequence[Contender], found: Measured, options: argparse.Namespace, seed: int) -> None:
    """Each contender once in each workload."""
    for workload, sizes in WORKLOADS.items():
        count = max(4, options.requests // 4) if workload == "256 px" else options.requests
        for contender in contenders:
            rate = saturated(contender, sizes, count, seed)
            found.capacity.setdefault(workload, {}).setdefault(contender.name, []).append(rate)
            print(f"{workload}: {contender.name} {rate:.2f} images/s", flush=True)


def measure_light(
    contenders: Sequence[Contender], found: Measured, apart: Executor, model: Mapping[str, Any], times: int
) -> None:
    """One request alone, at each contender and with nothing but the modules, in turns."""
    for _ in range(times):
        for contender in contenders:
            with contender.alone():
                seconds = send_load(f"{contender.url}/txt2img/", [LIGHT], [0.0])[0].seconds
            found.light.setdefault(contender.name, []).append(seconds)
        found.bare.append(apart.submit(draw_bare, model, LIGHT).result())


def measure_goodput(contenders: Sequence[Contender], found: Measured, options: argparse.Namespace) -> None:
    """All but the naive server, which batches nothing and only gives the solo times."""
    naive = next(one for one in contenders if one.name == NAIVE)
    with naive.alone():
        solo = measure_solo(f"{naive.url}/txt2img/")
    for kind in ARRIVALS if options.gamma else ARRIVALS[:1]:
        for contender in contenders:
            if contender.name == NAIVE:
                continue
            capacity = statistics.median(found.capacity["mixed"][contender.name])
            at = partial(measure_point, contender.name, contender.url, kind, solo=solo, least=options.requests)
            with contender.alone():
                found.points += search(lambda share, at=at, capacity=capacity: at(rate=share * capacity))
            print(f"goodput, {kind}: {contender.name} done", flush=True)


def measure(found: Measured, options: argparse.Namespace) -> None:
    """Start everything, warm it up, measure in turns."""
    model = {**MODEL, "executor": options.executor, "dtype": options.dtype}
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, get_context("spawn")) as apart,
        ProcessPoolExecutor(1, get_context("spawn")) as engine,
        run_contenders(model, Path(folder)) as contenders,
    ):
        for contender in contenders:
            warm_up(contender, options.requests)
        for _ in range(WARM_UPS):
            apart.submit(draw_bare, model, LIGHT).result()
        for seed in range(options.rounds):
            measure_round(contenders, found, options, seed)
            measure_light(contenders, found, apart, model, options.light)
            found.profile.append(engine.submit(profile_engine, model, options.requests).result())
        measure_goodput(contenders, found, options)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--light", type=int, default=5, help="requests alone, for each contender and round")
    parser.add_argument("--gamma", action="store_true", help="bursty pending too")
    parser.add_argument("--executor", default="openvino", help="Darkroom's `executor:`")
    parser.add_argument("--dtype", default="bfloat16", help="Darkroom's `dtype:`")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    found = Measured(
        f"Darkroom with `executor: {options.executor}`, `dtype: {options.dtype}`; "
        f"{options.requests} requests at a time, rounds: {options.rounds}"
    )
    try:
        measure(found, options)
    finally:
        if found.points:
            print(write_report(found, options.results))


if __name__ == "__main__":
    main()
