"""What Ray must be started with: the image, the pods and `darkroom serve` agree, and Serve knows every name."""

import os
import re
from pathlib import Path

import pytest
import ray.serve._private as private

from serve_app.cli.environment import prepare_environment
from serve_app.cli.front_end import FrontEnd, choose_front_end
from serve_app.config.ray_environment import (
    BINARY_VARIABLE,
    FRONT_END_VARIABLE,
    HAPROXY,
    HAPROXY_PROGRAM,
    local_environment,
    production_environment,
)
from serve_app.deployments.darkroom_haproxy import error_page, mend
from serve_app.deployments.proxy_callback import proxy_middlewares

ROOT = Path(__file__).parents[1]
RAYS_CONFIG = """global
    maxconn 4096
defaults
    mode http
    errorfile 502 /tmp/haproxy-serve/500.http
    errorfile 503 /tmp/haproxy-serve/500.http
frontend prometheus
    bind :9101
    no log
frontend http_frontend
    bind *:8000
backend default_backend
    http-request return status 404
listen stats
  bind *:8404
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours is set, and none stays."""
    for name in (*production_environment(), "RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS", "PATH"):
        monkeypatch.setenv(name, "")
        if name != "PATH":
            monkeypatch.delenv(name)


def test_the_image_and_the_pods_have_it() -> None:
    image = dict(re.findall(r"(?m)^ENV (\w+)=(.*)$", (ROOT / "Dockerfile").read_text()))
    pods = dict(re.findall(r"(?m)^(\w+)=(.*)$", (ROOT / "k8s" / "base" / "environment.env").read_text()))
    for name, value in production_environment().items():
        assert image[name].strip('"') == pods[name] == value, name


def test_serve_reads_every_name_of_haproxy() -> None:
    known = (Path(private.__path__[0]) / "constants.py").read_text()
    assert [one.name for one in HAPROXY if f'"{one.name}"' not in known] == []


@pytest.mark.usefixtures("environment")
def test_the_command_sets_what_its_front_end_needs_and_nothing_for_another_cluster() -> None:
    prepare_environment(verbose=True, front_end=FrontEnd.HAPROXY)
    assert FRONT_END_VARIABLE not in os.environ
    prepare_environment(own_cluster=True, verbose=True)
    assert os.environ[FRONT_END_VARIABLE] == "0"
    assert BINARY_VARIABLE not in os.environ
    prepare_environment(own_cluster=True, verbose=True, front_end=FrontEnd.HAPROXY)
    assert {name: os.environ[name] for name in local_environment(haproxy=True)} == local_environment(haproxy=True)
    assert len(proxy_middlewares()) == 2


@pytest.mark.usefixtures("environment")
def test_gpus_get_haproxy_and_a_laptop_the_python_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tls = tmp_path / "tls.yaml"
    with_tls.write_text("http_options: {ssl_certfile: x.pem}\nargs: {models: {m: {num_gpus: 1}}}")
    configs = ROOT / "configs"
    assert choose_front_end(configs / "prod.yaml", None) == FrontEnd.HAPROXY
    for path in (configs / "local.yaml", with_tls, tmp_path / "none.yaml"):
        assert choose_front_end(path, None) == FrontEnd.PYTHON
    assert choose_front_end(configs / "local.yaml", FrontEnd.HAPROXY) == FrontEnd.HAPROXY
    monkeypatch.setenv(FRONT_END_VARIABLE, "1")
    assert choose_front_end(configs / "local.yaml", None) == FrontEnd.HAPROXY


def test_haproxy_tells_the_client_and_has_no_open_statistics() -> None:
    mended = mend(RAYS_CONFIG, Path("/page.http"))
    assert re.findall(r"bind .*", mended) == ["bind *:8000"]
    assert "frontend http_frontend\n    option forwardfor\n    bind *:8000\n" in mended
    assert re.findall(r"errorfile .*", mended) == ["errorfile 502 /page.http", "errorfile 503 /page.http"]
    assert mend(mended, Path("/page.http")) == mended
    head, _, body = error_page().partition("\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head
    assert os.access(HAPROXY_PROGRAM, os.X_OK)
