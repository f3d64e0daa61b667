"""Keys: who may call at all."""

import base64
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serve_app.api.keys import Caller, find_caller, new_key, read_keys
from serve_app.api.middleware.auth import anonymous_caller
from serve_app.config.caller_limits import AnonymousLimits
from serve_app.errors import ConfigError, Unauthorized
from tests.api.fakes import fake_app


@pytest.fixture
def alice(tmp_path: Path) -> tuple[str, str]:
    """Alice's key, and the path of a key file with two keys."""
    (key, entry), (_, other) = new_key("alice"), new_key("bob")
    file = tmp_path / "keys.json"
    file.write_text(f"[{entry}, {other}]")
    return key, str(file)


def basic(name: str, key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{key}".encode()).decode()}


def test_only_health_answers_without_a_key(alice: tuple[str, str]) -> None:
    client, _ = fake_app(keys={"file": alice[1]})
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    for path in ("/docs", "/openapi.json", "/v1/models", "/sdapi/v1/options", "/v1/presets", "/nothing"):
        assert client.get(path).status_code == 401, path


def test_each_api_answers_401_in_its_shape(alice: tuple[str, str]) -> None:
    client, _ = fake_app(keys={"file": alice[1]})
    refused = client.post("/txt2img/", json={"prompt": "x"})
    assert refused.json()["error"]["code"] == "unauthorized"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
    assert client.get("/sdapi/v1/options").headers["www-authenticate"].startswith("Basic")


def test_bearer_and_basic_are_accepted(alice: tuple[str, str]) -> None:
    key, file = alice
    client, _ = fake_app(keys={"file": file})
    for headers in ({"Authorization": f"Bearer {key}"}, basic("alice", key)):
        assert client.post("/txt2img/", json={"prompt": "x"}, headers=headers).status_code == 200
    for headers in (
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Digest {key}"},
        {"Authorization": "Basic %%%"},
        basic("bob", key),
    ):
        assert client.post("/txt2img/", json={"prompt": "x"}, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        ("{}", "must be a list"),
        ('[{"name": "a"}]', "must have a sha256"),
        ('[{"name": "a", "sha256": "short"}]', "must match"),
    ],
)
def test_a_wrong_key_file_stops_the_start(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"keys\.file: (.|\n)*{message}"):
        read_keys(file)


def test_two_keys_of_one_name_and_a_missing_file_stop_the_start(tmp_path: Path) -> None:
    file, entry = tmp_path / "keys.json", new_key("a")[1]
    file.write_text(f"[{entry}, {entry}]")
    with pytest.raises(ConfigError, match="must have a different name"):
        read_keys(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(tmp_path / "none.json")


def test_a_key_is_found_by_its_hash() -> None:
    key, entry = new_key("a")
    assert key not in entry
    caller = Caller.model_validate_json(entry)
    assert find_caller(f"bearer {key}", [caller]) == caller
    with pytest.raises(Unauthorized):
        find_caller(None, [caller])


def test_a_mistake_in_the_key_file_never_repeats_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('[{"name": "app", "key": "dk-SECRET"}, {"name": "b", "sha256": "dk-SECRET"}]')
    with pytest.raises(ConfigError) as caught:
        read_keys(path)
    assert "SECRET" not in str(caught.value)
    assert str(caught.value).splitlines() == [
        f"keys.file: {path}: 0.key: is not a key of an entry",
        f"keys.file: {path}: 1.sha256: must match ^([0-9a-f]{{64}})?$",
    ]


def test_only_a_caller_with_a_key_reads_what_is_wrong_with_the_config(tmp_path: Path) -> None:
    key, entry = new_key("app")
    path = tmp_path / "keys.json"
    path.write_text(f"[{entry}]")
    client, service = fake_app(keys={"file": str(path)})
    service.mistakes = ["deployments.ingress.user_config.presets.x: must be given"]
    assert client.get("/readyz").json() == {"status": "ok", "config_errors": ["1 mistake: send a key to read it"]}
    mine = {"Authorization": f"Bearer {key}"}
    assert client.get("/readyz", headers=mine).json()["config_errors"] == service.mistakes
    service.unfit = ConfigError("models.emoji: /srv/models/emoji cannot follow defaults.sampler")
    assert client.get("/readyz").json()["error"]["message"].endswith("send a key to read why")
    assert "/srv/models" in client.get("/readyz", headers=mine).text


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_a_caller_without_a_key_is_the_network_of_one_person(host: str, network: str) -> None:
    assert anonymous_caller({"client": (host, 1)}, AnonymousLimits()).name == f"anyone@{network}"


def test_a_route_prefix_changes_neither_what_is_open_nor_the_shape_of_errors(alice: tuple[str, str]) -> None:
    client, _ = fake_app(keys={"file": alice[1]})
    client = TestClient(client.app, root_path="/images")
    assert client.get("/images/healthz").status_code == 200
    refused = client.post("/images/v1/images/generations", json={"prompt": "x"})
    assert refused.status_code == 401
    assert refused.json()["error"]["type"], "OpenAI's shape"
