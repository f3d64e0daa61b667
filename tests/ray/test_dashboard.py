"""The dashboard and the alerts, evaluated by a real Prometheus that watches the real cluster."""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray
import yaml

from tests.ray.apps import application, tiny_model
from tests.ray.conftest import Deploy, free_port

MONITORING = Path(__file__).parents[2] / "k8s" / "monitoring"
WINDOW = re.compile(r"\[\d+m\]")
COMPARISON = re.compile(r" (?:>|==|<) ")


def queries() -> dict[str, str]:
    """Every panel's query, and each side of every rule that has metrics in it."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$model", ".*")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            for index, side in enumerate(re.split(r" and |" + COMPARISON.pattern, rule["expr"])):
                if "ray_" in side:
                    found[f"{rule['alert']} {index}"] = side.partition(" * ")[2] or side
    # Windows are minutes in production; here the whole cluster is younger. And what fails here does so with a 4xx.
    return {name: WINDOW.sub("[15s]", query).replace('"5.."', '"4.."') for name, query in found.items()}


@pytest.fixture
def prometheus(base_url: str, tmp_path: Path) -> Iterator[str]:
    """A Prometheus of its own, scraping the test's cluster each second."""
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus: apt-get install prometheus")
    targets = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()]
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": targets}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
    ]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        yield f"http://{address}"
        server.terminate()
        server.wait(20)


def test_every_panel_and_every_rule_finds_its_metrics(prometheus: str, deploy: Deploy, tiny_sd: Path) -> None:
    short = {"tiny": {"max_waiting": 2}}
    client = deploy(application({"tiny": tiny_model(tiny_sd, engine={"max_rows": 2})}, settings=short))
    missing = queries()
    stop = threading.Event()

    def keep_asking(seed: int) -> None:
        while not stop.is_set():
            # Each prompt is new, so that prompts are encoded. Some requests are refused, as the queue is short; others
            # wait for a second.
            body = {"prompt": f"picture {seed} {time.time()}", "seed": seed, "num_inference_steps": 150}
            client.post("/txt2img/", json=body)
            time.sleep(0.1)

    askers = [threading.Thread(target=keep_asking, args=(seed,)) for seed in range(6)]
    for asker in askers:
        asker.start()
    try:
        deadline = time.monotonic() + 120
        while missing and time.monotonic() < deadline:
            time.sleep(2)
            missing = {name: query for name, query in missing.items() if not evaluate(prometheus, query)}
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert missing == {}


def evaluate(prometheus: str, query: str) -> list[object]:
    """The query's result now; empty where Prometheus is not up yet."""
    try:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=10).json()
    except httpx.TransportError:
        return []
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


def test_the_rules_are_sound_for_promtool() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    subprocess.run(["promtool", "check", "rules", str(MONITORING / "alerts.yaml")], check=True, capture_output=True)
