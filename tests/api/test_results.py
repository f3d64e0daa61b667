"""Signed links: who may follow them, for how long, and whose images make room."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest

from serve_app.api.keys import new_key
from serve_app.api.link_secret import MADE_FILE, read_secret
from serve_app.api.result_store import ResultStore
from serve_app.config import IngressConfig, ResultsConfig
from serve_app.config.mistakes import find_mistakes
from serve_app.errors import ConfigError, LimitExceeded, NotFound
from serve_app.requests.events import GeneratedImage, Timings
from tests.api.fakes import fake_app

GENERATIONS = "/v1/images/generations"
SECRET = b"s" * 32
MB = 2**20


def image(size: int = 10) -> GeneratedImage:
    return GeneratedImage(b"x" * size, "png", 8, 8, 0, Timings())


def fetch(store: ResultStore, link: str) -> bytes:
    """What a link leads to; raises NotFound."""
    name, _, query = link.removeprefix("/v1/results/").partition("?")
    expires, signature = (part.partition("=")[2] for part in query.split("&"))
    return store.get(name, int(expires), signature)[0]


class Store:
    """A store of 3 MB in a folder, 2 MB for each caller, and its time."""

    def __init__(self, folder: Path) -> None:
        self.now = 1e9
        config = ResultsConfig(url=str(folder), max_mb=3, max_mb_per_caller=2, max_age_s=100)
        self.store = ResultStore(config, SECRET, lambda: self.now)

    def put(self, owner: str, megabytes: float = 0.9) -> str:
        self.now += 1
        return self.store.put(image(int(megabytes * MB)), owner)


@pytest.fixture
def stored(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_link_needs_no_key_and_everything_else_does(tmp_path: Path) -> None:
    key, entry = new_key("alice")
    (tmp_path / "keys.json").write_text(f"[{entry}]")
    client, _ = fake_app(keys={"file": str(tmp_path / "keys.json")})
    headers = {"Authorization": f"Bearer {key}"}
    answer = client.post(GENERATIONS, json={"prompt": "x", "response_format": "url"}, headers=headers)
    url = answer.json()["data"][0]["url"]
    assert client.get(url).headers["content-type"] == "image/png"
    assert client.get(url[:-1] + ("0" if url[-1] != "0" else "1")).status_code == 404
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/results").status_code == 401


def test_nobody_makes_room_by_anothers_images(stored: Store) -> None:
    first, second = stored.put("alice"), stored.put("alice")
    others = [stored.put("bob")]
    third = stored.put("alice")
    with pytest.raises(NotFound):
        fetch(stored.store, first)
    for link in (second, third, *others):
        assert len(fetch(stored.store, link)) == int(0.9 * MB)
    with pytest.raises(LimitExceeded, match="store of results is full"):
        stored.put("carol")
    for link in (second, third, *others):
        fetch(stored.store, link)


def test_expired_images_are_deleted_without_a_request_for_them(stored: Store, tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("of somebody else")
    link = stored.put("alice")
    stored.now += 50
    later = stored.put("bob")
    stored.now += 60
    assert len(stored.store.sweep()) == 1
    assert len(list(tmp_path.glob("*.png"))) == 1
    assert (tmp_path / "keep.txt").exists()
    fetch(stored.store, later)
    with pytest.raises(NotFound):
        fetch(stored.store, link)


def test_a_folder_has_one_secret_for_all_starts(tmp_path: Path) -> None:
    config = ResultsConfig(url=f"file://{tmp_path}/results")
    made = read_secret(config, SECRET)
    assert len(made) >= 32
    assert made != SECRET
    assert read_secret(config, b"another start" * 3) == made
    file = tmp_path / "results" / MADE_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [MADE_FILE]


def test_memory_has_the_secret_of_this_start_and_a_file_goes_before(tmp_path: Path) -> None:
    assert read_secret(ResultsConfig(), SECRET) == SECRET
    file = tmp_path / "secret"
    file.write_text("y" * 40 + "\n")
    assert read_secret(ResultsConfig(secret_file=str(file)), SECRET) == b"y" * 40
    file.write_text("y" * 31)
    with pytest.raises(ConfigError, match="at least 32 bytes, got 31"):
        read_secret(ResultsConfig(secret_file=str(file)), SECRET)
    with pytest.raises(ConfigError, match="secret_file"):
        read_secret(ResultsConfig(secret_file=str(tmp_path / "none")), SECRET)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"url": "s3s://bucket"}, r"results.url: must be a folder or begin with a scheme .*did you mean s3"),
        ({"url": "nonsense://x"}, "results.url: must be a folder"),
        ({"url": "s3://bucket"}, "results.secret_file: must be given for s3: storage"),
    ],
)
def test_storage_that_cannot_work_is_a_mistake_of_the_config(results: dict[str, Any], message: str) -> None:
    (line,) = find_mistakes(IngressConfig, {"results": results})
    assert re.match(message, line), line


def test_known_storage_is_none() -> None:
    for url in ("/var/x", "file:///var/x", "memory://x"):
        assert find_mistakes(IngressConfig, {"results": {"url": url}}) == []
    assert find_mistakes(IngressConfig, {"results": {"url": "s3://b", "secret_file": "/etc/secret"}}) == []
