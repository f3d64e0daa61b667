"""Every overlay, rendered once."""

import shutil

import pytest

from tests.k8s.rendered import OVERLAYS, Manifest, render


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl to render with")
    return {name: render(name) for name in OVERLAYS}
