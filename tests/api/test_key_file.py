"""The key file while a server uses it, and the commands that change it."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.api.key_file import LOOK_SECONDS, KeyFile
from serve_app.api.keys import Caller, find_caller, new_key
from serve_app.cli.commands import app
from tests.api.fakes import fake_app


def darkroom(*arguments: str) -> str:
    """What a command prints."""
    found = CliRunner().invoke(app, ["keys", *arguments])
    assert found.exit_code == 0, found.output
    return found.stdout.strip()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that key files see; the test moves it."""
    found = [0.0]
    init = KeyFile.__init__
    monkeypatch.setattr(KeyFile, "__init__", lambda self, path: init(self, path, lambda: found[0]))
    return found


def test_keys_are_made_listed_and_revoked_while_a_server_uses_them(tmp_path: Path, now: list[float]) -> None:
    file = tmp_path / "keys.json"
    first = darkroom("new", "alice", "--file", str(file))
    client, _ = fake_app(keys={"file": str(file)})

    def status(key: str) -> int:
        now[0] += LOOK_SECONDS + 0.1
        return client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code

    assert status(first) == 200
    second = darkroom("new", "bob", "--file", str(file))
    assert status(second) == 200
    assert [json.loads(line) for line in darkroom("list", "--file", str(file)).splitlines()] == [
        {"name": "alice"},
        {"name": "bob"},
    ]
    darkroom("revoke", "alice", "--file", str(file))
    assert status(first) == 401
    assert status(second) == 200


def test_the_file_holds_no_key_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = darkroom("new", "alice", "--file", str(file))
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["keys.json"]


def test_limits_that_were_written_by_hand_stay(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{**json.loads(new_key("a")[1]), "rate": 5}]))
    darkroom("new", "b", "--file", str(file))
    assert json.loads(file.read_text())[0]["rate"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["new", "a"], "has a key a already"), (["revoke", "nobody"], "has no key nobody"), (["new", ""], "name")],
)
def test_a_command_that_cannot_be_done_says_why_and_changes_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(f"[{new_key('a')[1]}]")
    before = file.read_text()
    found = CliRunner().invoke(app, ["keys", *arguments, "--file", str(file)])
    assert found.exit_code != 0
    assert message in found.output
    assert file.read_text() == before


def test_a_broken_file_keeps_the_earlier_keys_and_is_told(
    tmp_path: Path, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    file, (key, entry) = tmp_path / "keys.json", new_key("alice")
    file.write_text(f"[{entry}]")
    client, _ = fake_app(keys={"file": str(file)})
    headers = {"Authorization": f"Bearer {key}"}
    for broken in ("[{", None):
        file.unlink() if broken is None else file.write_text(broken)
        now[0] += LOOK_SECONDS + 0.1
        ready = client.get("/readyz", headers=headers)
        assert ready.status_code == 200
        assert "keys.file" in ready.json()["config_errors"][0]
        assert "the earlier keys stay valid" in caplog.text
    file.write_text(f"[{entry}]")
    now[0] += LOOK_SECONDS + 0.1
    assert client.get("/readyz", headers=headers).json()["config_errors"] == []


def test_the_disk_is_not_touched_for_each_request(
    tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(f"[{new_key('alice')[1]}]")
    keys = KeyFile(file)
    looks: list[Path] = []
    found = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: (looks.append(self), found(self, **more))[1])

    async def ask() -> None:
        for _ in range(100):
            now[0] += 0.01
            await keys.callers()

    now[0] += LOOK_SECONDS
    asyncio.run(ask())
    assert len([path for path in looks if path == file]) == 1


def test_a_header_that_is_no_text_is_an_unknown_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(f"[{new_key('alice')[1]}]")
    client, _ = fake_app(keys={"file": str(file)})
    for header in (b"Basic \xe9", b"Basic 6Q==", b"Bearer \xe9", b"Basic \x00", b"\xff"):
        assert client.get("/v1/models", headers=[(b"Authorization", header)]).status_code == 401


def test_a_printed_key_is_the_one_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = darkroom("new", "bob", "--file", str(file))
    (entry,) = json.loads(file.read_text())
    assert find_caller(f"Bearer {key}", [Caller.model_validate(entry)]).name == "bob"
