"""A span for each HTTP request, known to the log by its trace and to the trace by its request id."""

from typing import Any

from fastapi import FastAPI
from opentelemetry.propagate import inject
from opentelemetry.trace import Span, TracerProvider, format_trace_id


def add_tracing(app: FastAPI, provider: TracerProvider) -> None:
    """Follow W3C's `traceparent` or begin a trace."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        server_request_hook=_name_each_other,
        exclude_spans=["receive", "send"],
        excluded_urls="healthz,readyz",
    )


def current_traceparent() -> str:
    """W3C's header for what runs now; empty where it is not traced."""
    carrier: dict[str, str] = {}
    inject(carrier)
    header = carrier.get("traceparent", "")
    return header if header.endswith("-01") else ""


def _name_each_other(span: Span, scope: dict[str, Any]) -> None:
    line = scope["log_line"]
    line["trace_id"] = format_trace_id(span.get_span_context().trace_id)
    span.set_attribute("request_id", line["request_id"])
