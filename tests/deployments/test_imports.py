"""What the builder and the ingress load: Python takes seconds for torch, diffusers and transformers."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
{statement}
print(*(name for name in ("torch", "diffusers", "transformers") if name in sys.modules))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import serve_app.app, serve_app.deployments.ingress, serve_app.api.app",
        "import serve_app.config.serve_file",
        "import serve_app.deployments.replica, serve_app.deployments.safety_replica",
    ],
)
def test_neither_the_builder_nor_the_ingress_loads_torch(statement: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(statement=statement)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
