"""The mixed workload of `bodies.py` as an engine gets it, and what it costs."""

from collections import defaultdict
from collections.abc import Sequence

from bodies import draw_bodies

from serve_app.diffusion.tables import SamplerTables
from serve_app.models.model_family import ModelFamily
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.params import GenerationParams
from serve_app.requests.request import GenerationRequest
from serve_app.requests.resolve import resolve


def draw_requests(model: ModelCapabilities, count: int, sizes: Sequence[int]) -> list[GenerationRequest]:
    """Its first requests, resolved for a library user."""
    return [resolve(GenerationParams(**body), "model", model)[0] for body in draw_bodies(count, sizes)]


def rows_of(family: ModelFamily, requests: Sequence[GenerationRequest]) -> int:
    """UNet rows that the requests need from first to last step."""
    tables = SamplerTables(family.scheduler_config)
    return sum(
        tables.table(r.sampling.sampler, r.sampling.scheduler, r.sampling.num_inference_steps).num_model_calls
        * (2 if r.sampling.guidance_scale > 1 else 1)
        for r in requests
    )


def equal_groups(requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
    """What a batcher that needs equal parameters can put together."""
    groups: dict[tuple[object, ...], list[GenerationRequest]] = defaultdict(list)
    for request in requests:
        groups[
            request.sampling.sampler,
            request.sampling.scheduler,
            request.sampling.num_inference_steps,
            request.sampling.guidance_scale,
        ].append(request)
    return list(groups.values())
