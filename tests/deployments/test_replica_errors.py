"""What a caller reads of a replica's error: nothing that names the server's files."""

import pytest

from serve_app.errors import GenerationFailed, InvalidRequest, ModelLoadError
from tests.deployments.fake_handles import FakeChecker, FakeReplicas, flag, ingress_client

PATH = "/srv/models/style.safetensors"


@pytest.mark.parametrize("path", ["/txt2img/", "/v1/generate", "/v1/images/generations", "/sdapi/v1/txt2img"])
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
@pytest.mark.parametrize("by_grpc", [False, True])
@pytest.mark.parametrize("error", [ModelLoadError(f"loras.style: {PATH} cannot be read"), OSError(2, "no file", PATH)])
def test_no_file_of_the_server_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, by_grpc: bool, accept: str, path: str
) -> None:
    with ingress_client(monkeypatch, FakeReplicas(error=error, by_grpc=by_grpc), FakeChecker(flag)) as client:
        answer = client.post(path, json={"prompt": "x"}, headers={"Accept": accept})
    assert "the server's log says more" in answer.text
    assert "/srv" not in answer.text
    assert "traceback" not in answer.text


@pytest.mark.parametrize("by_grpc", [False, True])
@pytest.mark.parametrize("error", [InvalidRequest("sampler", "lcm", "must be another"), GenerationFailed("not finite")])
def test_an_error_of_the_request_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception, by_grpc: bool
) -> None:
    with ingress_client(monkeypatch, FakeReplicas(error=error, by_grpc=by_grpc), FakeChecker(flag)) as client:
        assert client.post("/txt2img/", json={"prompt": "x"}).json()["error"]["message"] == str(error)
