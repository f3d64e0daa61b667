"""What a span tells of its HTTP request."""

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from serve_app.api.app import create_app
from tests.api.fakes import FakeService


def test_a_span_has_no_signature_key_or_prompt() -> None:
    exporter, provider, service = InMemorySpanExporter(), TracerProvider(), FakeService()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    client = TestClient(create_app(service, service.config, provider=provider))
    client.headers["Authorization"] = "Bearer my-secret-key"
    client.get("/v1/results/1-a.png?expires=1&signature=my-secret-signature")
    client.post("/txt2img/", json={"prompt": "my-secret-prompt"})
    spans = exporter.get_finished_spans()
    assert [dict(span.attributes or {})["http.target"] for span in spans] == ["/v1/results/1-a.png", "/txt2img/"]
    assert "my-secret" not in " ".join(span.to_json() for span in spans)
