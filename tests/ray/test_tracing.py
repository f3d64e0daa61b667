"""Traces over the real Serve app, received by a collector: from the HTTP request to every denoising step."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WAIT_SECONDS = 30


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        spans = self.spans = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    spans.extend(span for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def wait_for(self, trace: str, name: str) -> list[Span]:
        """The spans of a trace, once the one of that name has come."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            found = [span for span in self.spans if span.trace_id.hex() == trace]
            if any(span.name == name for span in found):
                return found
            assert time.monotonic() < deadline, [span.name for span in self.spans]
            time.sleep(0.1)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def attributes(span: Span) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_trace_reaches_from_the_request_to_every_step(deploy: Deploy, collector: Collector, tiny_sd: Path) -> None:
    client = deploy(application({"tiny": tiny_model(tiny_sd)}, args={"tracing": {"endpoint": collector.url}}))
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "order-7"}
    body = {"prompt": "a secret cat", "num_inference_steps": 6, "sampler": "euler"}
    assert client.post("/txt2img/", json=body, headers=headers).status_code == 200
    collector.wait_for(TRACE, "image")
    spans = collector.wait_for(TRACE, "POST /txt2img/")
    by_name = {span.name: span for span in spans}
    request, image, denoise = (by_name[name] for name in ("POST /txt2img/", "image", "denoise"))
    assert request.parent_span_id.hex() == PARENT
    assert attributes(request)["request_id"] == "order-7"
    assert image.parent_span_id == request.span_id
    assert attributes(image)["num_inference_steps"] == 6
    assert all(by_name[name].parent_span_id == image.span_id for name in ("queue", "encode", "denoise", "decode"))
    steps = [span for span in spans if span.name == "step"]
    assert len(steps) == 6
    assert all(step.parent_span_id == denoise.span_id for step in steps)
    assert all(attributes(step) == {"rows": 2, "images": 1} for step in steps)
    assert all(step.start_time_unix_nano < step.end_time_unix_nano for step in steps)
    assert request.start_time_unix_nano <= image.start_time_unix_nano <= image.end_time_unix_nano
    assert "secret" not in str(spans)


def test_only_a_sample_is_traced(deploy: Deploy, collector: Collector, tiny_sd: Path) -> None:
    tracing = {"endpoint": collector.url, "sample_ratio": 0}
    client = deploy(application({"tiny": tiny_model(tiny_sd)}, args={"tracing": tracing}))
    assert client.post("/txt2img/", json={"prompt": "x"}).status_code == 200
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert client.post("/txt2img/", json={"prompt": "x"}, headers=headers).status_code == 200
    collector.wait_for(TRACE, "image")
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
