"""OpenTelemetry: where a traced request's spans go, and the spans of an image's life on its replica."""

import time
from typing import Any

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import TracerProvider

from serve_app.config import TracingConfig
from serve_app.errors import ConfigError
from serve_app.requests.events import GeneratedImage
from serve_app.requests.request import CallerContext, GenerationRequest

EXPORT_MILLISECONDS = 1000


def start_tracing(config: TracingConfig | None) -> TracerProvider | None:
    """This process's provider; None where tracing is off. Raises ConfigError where the extra is not installed."""
    if config is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ConfigError(f"tracing: not installed ({error}): pip install 'darkroom[tracing]'") from error
    sampler = ParentBased(TraceIdRatioBased(config.sample_ratio))
    provider = Provider(sampler=sampler, resource=Resource.create({"service.name": config.service_name}))
    exporter = OTLPSpanExporter(endpoint=config.endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_MILLISECONDS))
    return provider


class ImageSpans:
    """Writes the spans of finished images, under the caller's: their phases, and each denoising step with its rows."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = (provider or trace.NoOpTracerProvider()).get_tracer("darkroom")

    def record(self, request: GenerationRequest, context: CallerContext, image: GeneratedImage) -> None:
        """One image, just finished; nothing where its caller is not traced."""
        if not context.traceparent:
            return
        timings, ended = image.timings, time.time()
        began = ended - timings.total
        parent = extract({"traceparent": context.traceparent})
        span = self._tracer.start_span("image", parent, attributes=attributes(request), start_time=_nanoseconds(began))
        inside = trace.set_span_in_context(span)
        for name in ("queue", "encode", "denoise", "decode"):
            until = began + getattr(timings, name)
            phase = self._tracer.start_span(name, inside, start_time=_nanoseconds(began))
            if name == "denoise":
                self._record_steps(trace.set_span_in_context(phase), image)
            phase.end(_nanoseconds(until))
            began = until
        span.end(_nanoseconds(ended))

    def _record_steps(self, context: Any, image: GeneratedImage) -> None:
        """Steps are timed by the monotonic clock."""
        offset = time.time() - time.monotonic()
        for step in image.timings.steps:
            span = self._tracer.start_span(
                "step",
                context,
                attributes={"rows": step.rows, "images": step.images},
                start_time=_nanoseconds(offset + step.began),
            )
            span.end(_nanoseconds(offset + step.began + step.seconds))


def attributes(request: GenerationRequest) -> dict[str, str | int | float]:
    """What a span tells of a request: never its prompts."""
    return {
        "model": request.model,
        "sampler": request.sampling.sampler,
        "schedule": request.sampling.scheduler,
        "num_inference_steps": request.sampling.num_inference_steps,
        "guidance_scale": request.sampling.guidance_scale,
        "width": request.width,
        "height": request.height,
        "seed": request.seed,
    }


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
