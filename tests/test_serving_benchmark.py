"""The serving benchmark's own arithmetic, and its load generator against a slow server."""

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

pytest.importorskip("matplotlib", reason="an optional extra")
sys.path.insert(0, str(ROOT / "benchmarks"))

import itertools

from bare import Profile
from bodies import draw_bodies
from goodput import Point, goodput, make_point, search, solo_seconds
from load import Outcome, draw_arrivals, send_load
from report import Measured, write_report
from serving import MODEL, WORKLOADS

from serve_app.config import ModelConfig
from serve_app.requests.capabilities import ModelCapabilities
from serve_app.requests.params import GenerationParams
from serve_app.requests.resolve import resolve

SERVICE_SECONDS = 0.2


@pytest.fixture
def serial_server() -> Iterator[str]:
    """Answers one request at a time, and refuses those that ask for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(SERVICE_SECONDS)
            self.send_response(429 if b"refuse" in body else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_latency_counts_from_the_schedule_however_slow_the_server_is(serial_server: str) -> None:
    outcomes = send_load(serial_server, [{"i": i} for i in range(4)] + [{"refuse": True}], [0.0] * 5)
    assert [outcome.status for outcome in outcomes].count(200) == 4
    waits = sorted(outcome.seconds for outcome in outcomes)
    assert all(wait >= (place + 1) * SERVICE_SECONDS for place, wait in enumerate(waits))
    assert {outcome.status for outcome in outcomes} == {200, 429}


def test_nobody_there_is_an_outcome() -> None:
    assert send_load("http://127.0.0.1:9/", [{}], [0.0])[0].status == 0


@pytest.mark.parametrize("kind", ["poisson", "gamma"])
def test_arrivals_have_their_rate(kind: str) -> None:
    times = draw_arrivals(kind, 5.0, 20000)  # pyright: ignore
    assert times == sorted(times)
    assert times[-1] == pytest.approx(4000, rel=0.1)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean
    assert variation == pytest.approx(1.0 if kind == "poisson" else 3.0, rel=0.1)


def test_bodies_are_unlike_and_the_same_every_time() -> None:
    bodies = draw_bodies(200)
    assert bodies[:50] == draw_bodies(50)
    assert {body["width"] for body in bodies} == {64, 128, 192}
    assert len({body["num_inference_steps"] for body in bodies}) > 40
    assert 0.1 < sum(body["guidance_scale"] == 1.0 for body in bodies) / 200 < 0.3


def point(rate: float, in_time: float, name: str = "x") -> Point:
    """Of 100 requests, a share within three times, all within five times."""
    slow = round(100 * (1 - in_time))
    return Point(name, "poisson", rate, (1.0,) * (100 - slow) + (4.0,) * slow, (1.0,) * 100)


def test_darkroom_draws_every_size_that_its_peers_draw() -> None:
    model = ModelCapabilities(native_size=ModelConfig.model_validate(MODEL).native_size)
    bodies = draw_bodies(40, sorted({side for sizes in WORKLOADS.values() for side in sizes}))
    drawn = [resolve(GenerationParams(**body), "emoji", model)[0] for body in bodies]
    assert [(one.width, one.height) for one in drawn] == [(body["width"], body["height"]) for body in bodies]


def test_a_request_that_fails_is_never_in_time() -> None:
    found = make_point("x", "poisson", 1.0, [Outcome(2.0, 200), Outcome(0.1, 500)], [1.0, 1.0])
    assert found.attained(3.0) == 0.5
    assert solo_seconds({(64, True): (1.0, 0.5)}, draw_bodies(1, (64,))[0] | {"guidance_scale": 5.0}) > 3.0


def test_goodput_lies_on_the_line_between_the_last_that_holds_and_the_next() -> None:
    points = [point(1.0, 1.0), point(2.0, 0.9), point(3.0, 0.5)]
    assert goodput(points, 3.0) == pytest.approx(1.5)
    assert goodput(points, 5.0) == 3.0
    assert goodput(points[1:], 3.0) == 0.0


def test_the_search_goes_on_until_both_objectives_are_bracketed() -> None:
    tried = search(lambda share: point(share, 1.0 if share < 0.25 else 0.5))
    assert [round(one.rate, 2) for one in tried] == [0.18, 0.33, 0.6, 0.78, 1.01]
    tried = search(lambda share: Point("x", "poisson", share, (9.0,), (9.0,)))
    assert [round(one.rate, 2) for one in tried] == [0.18, 0.33, 0.6]


def test_the_report_tells_every_ratio(tmp_path: Path) -> None:
    names = ["Darkroom", "Ray @serve.batch", "FastAPI + diffusers", "LitServe", "OpenVINO GenAI"]
    rates = {name: [6.0 / (place + 1)] for place, name in enumerate(names)}
    points = [point(rate, 1.0 if rate < 2 else 0.9, name) for name in names for rate in (1.0, 2.0)]
    points += [point(4.0, 1.0, "Darkroom")]
    found = Measured(
        "on a test",
        capacity=dict.fromkeys(("mixed", "64 px", "128 px", "256 px"), rates),
        points=points,
        light={key: [2.1] for key in names},
        bare=[2.0],
        profile=[Profile(10.0, {"predict": 9.0, "encode": 0.5})],
    )
    text = write_report(found, tmp_path)
    assert (tmp_path / "serving.md").read_text() == text + "\n"
    assert "| C1 saturated images/s / FastAPI + diffusers | 3.00 | ≥ 4 |" in text
    assert "| C2 saturated images/s / OpenVINO GenAI, 64 px | 5.00 | ≥ 1.5 |" in text
    assert "| C3 goodput at SLO 3x / LitServe | ≥ 2.67 | ≥ 5 |" in text
    assert "| Darkroom | 3.00 | 3.00 | 3.00 | 3.00 | ≥ 4.00 | ≥ 4.00 |" in text
    assert "| LitServe | 0.75 | 0.75 | 0.75 | 0.75 | 1.50 | ≥ 2.00 |" in text
    assert "| C7 engine step / bare calls of the same rows | 1.053 | ≤ 1.01 |" in text
    assert "| C13 light load: P50 through HTTP / bare executor | 1.050 | ≤ 1.05 |" in text
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("saturated.png", "goodput.png"))
