"""Tracing of HTTP requests: one span per request. Logs carry its trace_id; the span carries the request_id."""

from typing import Any

from fastapi import FastAPI
from opentelemetry.trace import Span, TracerProvider, format_trace_id
from starlette.datastructures import URL

from serve_app.api.middleware.access_log import AccessRecord


def add_tracing(app: FastAPI, provider: TracerProvider) -> None:
    """Give each request a span, in the trace that its W3C `traceparent` header names, or else in a new trace."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        server_request_hook=_link_log_and_span,
        exclude_spans=["receive", "send"],
        excluded_urls="healthz,readyz",
    )


def _link_log_and_span(span: Span, scope: dict[str, Any]) -> None:
    record = scope["access_record"]
    assert isinstance(record, AccessRecord)
    record.trace_id = format_trace_id(span.get_span_context().trace_id)
    span.set_attribute("request_id", record.request_id)
    # The query of a result's link is what opens it.
    span.set_attribute("http.url", str(URL(scope=scope).replace(query="")))
