"""A short headless round of the load test, as README says to run it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT


def test_a_short_round_has_no_failures(served: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "tests" / "load" / "locustfile.py"), "--headless"),
        *("--host", served, "-u", "4", "-r", "4", "-t", "12s", "-s", "30", "--json"),
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=tmp_path)
    assert found.returncode == 0, found.stderr[-2000:]
    rounds = json.loads(found.stdout)
    assert {entry["name"] for entry in rounds} == {"/txt2img/", "/v1/images/generations", "/sdapi/v1/txt2img"}
    assert all(entry["num_failures"] == 0 and entry["num_requests"] > 0 for entry in rounds)
