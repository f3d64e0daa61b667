"""The benchmark runs and prints its table; what the numbers are is not a test's business."""

import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT


def test_engine_benchmark_prints_its_table(tiny_sd: Path) -> None:
    command = [sys.executable, "benchmarks/engine.py", "--model", str(tiny_sd), "--native-size", "64"]
    run = subprocess.run([*command, "--requests", "6", "--rounds", "1"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = [line.split("|")[1].strip() for line in run.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == ["limit", "engine", "pipeline", "static"]
    assert "engine bookkeeping:" in run.stdout
