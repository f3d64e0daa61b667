"""What a replica imports and prints when it starts."""

import subprocess
import sys

LOAD = """
import sys
from serve_app.engine.engine import Engine
from serve_app.config import EngineConfig, ModelConfig
config = ModelConfig(source="builtin:emoji", native_size=128, cpu_threads=1, engine=EngineConfig(max_rows=2))
Engine.load(config).close()
print(*(name for name in sys.modules if name.startswith("diffusers.pipelines.")))
"""


def test_a_replica_starts_without_pipelines_and_without_a_word() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], "their import takes time, and prints warnings about torchvision"
    assert done.stderr == ""
