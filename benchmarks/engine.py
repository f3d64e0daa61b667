"""How close the engine comes to the bare modules, and how far ahead of the usual ways of serving it is.

One run, one machine, the same weights and requests, the contenders interleaved round by round:

  limit     the UNet in a loop at its best batch size, then the decodes; nothing else
  engine    all requests at once, unlike steps, guidance and samplers
  pipeline  the stock diffusers pipeline, one request at a time
  static    batches of requests whose parameters are equal, through the stock pipeline

    python benchmarks/engine.py [--requests 64] [--rounds 3] [--model builtin:emoji]

Or what `decode_batch` costs one image alone and gives 16 that finish at unlike or at equal steps:

    python benchmarks/engine.py --decode-batches 1 4 [--rounds 3]
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline
from timing import TimedFamily, TimedOrder
from workload import draw_requests, equal_groups, rows_of

from serve_app.config import EngineConfig, ModelConfig
from serve_app.diffusion.new_scheduler import new_scheduler
from serve_app.engine.engine import Engine
from serve_app.engine.step_latency import measure_curve
from serve_app.models.cpu_threads import run_apart
from serve_app.models.load_family import load_family
from serve_app.models.loading.sources import find_checkpoint
from serve_app.models.model_family import DenoisingBatch, ModelFamily, Prompt
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import GenerationRequest
from serve_app.requests.resolve import resolve
from serve_app.requests.step_curve import StepCurve


@dataclass
class Round:
    """One contender's result: when each request was done, and UNet rows a second while there was a queue."""

    done: list[float] = field(default_factory=list)
    rows_per_second: float = 0.0

    def latency(self, share: float) -> float:
        """The latency that `share` of the requests stay within, all having arrived at once."""
        return sorted(self.done)[min(len(self.done) - 1, int(share * len(self.done)))]


def run_limit(family: ModelFamily, requests: Sequence[GenerationRequest], batch_rows: int) -> Round:
    """As many UNet rows and decodes as the requests need, in batches of `batch_rows`, and nothing else."""
    needed = rows_of(family, requests)
    factor = family.autoencoder.scale_factor
    shape = (family.autoencoder.latent_channels, requests[0].height // factor, requests[0].width // factor)
    with torch.inference_mode():
        conditioning = family.encode([family.tokenize(Prompt("x"))]) * batch_rows
        latents = torch.randn(batch_rows, *shape, device=family.device)
        timesteps, scales = (torch.full((batch_rows,), value, device=family.device) for value in (500.0, 1.0))
        batch = DenoisingBatch(latents, timesteps, scales, conditioning)
        start = time.perf_counter()
        for _ in range(needed // batch_rows):
            family.predict(batch)
        for _ in requests:
            family.autoencoder.decode(latents[:1])
        seconds = time.perf_counter() - start
    return Round([seconds] * len(requests), needed // batch_rows * batch_rows / seconds)


def run_engine(engine: Engine, requests: Sequence[GenerationRequest], batch_rows: int) -> Round:
    """Everything at once. Its rate is taken while the queue is longer than a batch: what is saturated."""
    result = Round()
    before = engine.counters.model_rows
    start = time.perf_counter()

    def note(_: object) -> None:
        result.done.append(time.perf_counter() - start)
        if 2 * (len(requests) - len(result.done)) >= batch_rows or len(result.done) == 1:
            result.rows_per_second = (engine.counters.model_rows - before) / result.done[-1]

    futures = [engine.submit(request) for request in requests]
    for future in futures:
        future.add_done_callback(note)
    for future in futures:
        future.result()
    return result


def run_pipeline(pipeline: Any, family: ModelFamily, groups: Sequence[Sequence[GenerationRequest]]) -> Round:
    """Group after group, each in one call."""
    result = Round()
    start = time.perf_counter()
    for group in groups:
        first = group[0]
        pipeline.scheduler = new_scheduler(family.scheduler_config, first.sampling.sampler, first.sampling.scheduler)
        pipeline(
            [request.prompt for request in group],
            num_inference_steps=first.sampling.num_inference_steps,
            guidance_scale=first.sampling.guidance_scale,
            height=first.height,
            width=first.width,
            generator=[torch.Generator().manual_seed(request.seed) for request in group],
        )
        result.done += [time.perf_counter() - start] * len(group)
    result.rows_per_second = rows_of(family, [request for group in groups for request in group]) / result.done[-1]
    return result


def print_table(rounds: dict[str, list[Round]], rows_per_image: float) -> None:
    """Medians over the rounds; ratios are medians of each round's own. Images are counted in equal model calls."""
    print("| contender | images/s | p50 s | p95 s | rate / limit | rate / pipeline |")
    print("|---|---|---|---|---|---|")
    for name, results in rounds.items():
        to_limit, to_pipeline = (
            statistics.median(
                mine.rows_per_second / other.rows_per_second for mine, other in zip(results, rounds[base], strict=True)
            )
            for base in ("limit", "pipeline")
        )
        rate, p50, p95 = (
            statistics.median(values)
            for values in zip(
                *((r.rows_per_second / rows_per_image, r.latency(0.5), r.latency(0.95)) for r in results), strict=True
            )
        )
        print(f"| {name} | {rate:.2f} | {p50:.1f} | {p95:.1f} | {to_limit:.2f} | {to_pipeline:.2f} |")


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:emoji")
    parser.add_argument("--native-size", type=int, default=128)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decode-batches", type=int, nargs="+", metavar="ROWS")
    return parser.parse_args()


def shorten(request: GenerationRequest) -> GenerationRequest:
    """The same in two steps, to warm up with."""
    return replace(request, sampling=request.sampling.model_copy(update={"num_inference_steps": 2}))


def time_decode_batch(family: ModelFamily, config: ModelConfig, rows: int) -> tuple[float, ...]:
    """Seconds of one image alone (median of 5), and until all 16 are done that finish at unlike, at equal steps."""
    model = ModelCapabilities(native_size=config.native_size)
    unlike = draw_requests(model, 16, (config.native_size,))
    one = resolve(GenerationParams(prompt="red apple", num_inference_steps=25, seed=0), "model", model)[0]
    equal = [replace(one, seed=seed) for seed in range(16)]
    engine_config = config.engine.model_copy(update={"decode_batch": rows})
    with Engine(family, config.model_copy(update={"engine": engine_config})) as engine:
        run_engine(engine, [shorten(request) for request in unlike], 1)
        run_apart(lambda: [engine.table(request) for request in [*unlike, one]])
        alone = statistics.median(run_engine(engine, [one], 1).latency(1) for _ in range(5))
        return alone, *(run_engine(engine, requests, 1).latency(1) for requests in (unlike, equal))


def compare_decode_batches(family: ModelFamily, config: ModelConfig, sizes: Sequence[int], rounds: int) -> None:
    """Medians over the rounds, in which the sizes take turns; ratios are medians of each round's own."""
    found = [[time_decode_batch(family, config, rows) for rows in sizes] for _ in range(rounds)]
    print("| decode batch | alone s | 16 unlike s | 16 equal s | over the first |\n|---|---|---|---|---|")
    for index, rows in enumerate(sizes):
        times = [[one[index][case] for one in found] for case in range(3)]
        ratios = [statistics.median(one[index][case] / one[0][case] for one in found) for case in range(3)]
        seconds = " | ".join(f"{statistics.median(values):.2f}" for values in times)
        print(f"| {rows} | {seconds} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |")


def run_round(
    family: ModelFamily, config: ModelConfig, curve: StepCurve, requests: Sequence[GenerationRequest], pipeline: Any
) -> tuple[dict[str, Round], float]:
    """Every contender once, each in threads that end with it; and the engine's bookkeeping as a share of step time."""
    rows = config.engine.max_rows or 1
    found = {"limit": run_apart(lambda: run_limit(family, requests, rows))}
    timed: Any = TimedFamily(family)
    order = TimedOrder(lambda _: rows, curve.seconds_of)
    with Engine(timed, config, order) as engine:
        run_engine(engine, [shorten(request) for request in requests[:4]], rows)
        run_apart(lambda: [engine.table(request) for request in requests])
        timed.seconds.clear()
        order.busy = 0.0
        found["engine"] = run_engine(engine, requests, rows)
    bookkeeping = 1 - (timed.seconds["predict"] + timed.seconds["encode"]) / order.busy
    groups = {"pipeline": [[request] for request in requests], "static": equal_groups(requests)}
    for name, group in groups.items():
        found[name] = run_apart(partial(run_pipeline, pipeline, family, group))
    return found, bookkeeping


def main() -> None:
    """Measure and print."""
    options = read_options()
    config = ModelConfig(source=options.model, native_size=options.native_size)
    family = run_apart(lambda: load_family(config))
    if options.decode_batches:
        compare_decode_batches(family, config, options.decode_batches, options.rounds)
        return
    pipeline = DiffusionPipeline.from_pretrained(str(find_checkpoint(config)), torch_dtype=torch.float32).to(
        family.device
    )
    pipeline.set_progress_bar_config(disable=True)
    curve = run_apart(lambda: measure_curve(family, config))
    print(f"UNet rows/s by batch: { {n: round(n / s) for n, s in curve.seconds.items()} }, best {curve.best_rows}\n")
    config = config.model_copy(update={"engine": EngineConfig(max_rows=curve.best_rows)})
    requests = draw_requests(ModelCapabilities(native_size=config.native_size), options.requests, (config.native_size,))
    rounds: dict[str, list[Round]] = defaultdict(list)
    overheads: list[float] = []
    for _ in range(options.rounds):
        found, bookkeeping = run_round(family, config, curve, requests, pipeline)
        overheads.append(bookkeeping)
        for name, result in found.items():
            rounds[name].append(result)
    print_table(rounds, rows_of(family, requests) / len(requests))
    print(f"\nengine bookkeeping: {statistics.median(overheads):.1%} of step time with {len(requests)} in flight")
    print(f"static batches of equal parameters: {len(requests) / len(equal_groups(requests)):.2f} requests each")


if __name__ == "__main__":
    main()
