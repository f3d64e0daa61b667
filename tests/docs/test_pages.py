"""Every page: its code blocks are sound, its links lead somewhere, its generated parts are up to date."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import Image
from pydantic import TypeAdapter

from serve_app.api.keys import Caller
from serve_app.api.middleware.access_log import AccessRecord
from serve_app.api.native.native_errors import ProblemResponse
from serve_app.api.native.schemas import GenerateBody, PresetBody
from serve_app.config.serve_file import find_application_mistakes
from tests.docs.blocks import LANGUAGES, PAGES, ROOT, Block, read_blocks

OPTION = re.compile(r"--[\w-]+")
FOREIGN_PROGRAMS = {"docker", "helm", "kubectl", "kustomize", "npm", "node", "go", "pytest", "locust"}
"""Programs whose options are not ours to check; the files that they are given are."""
EXTENSIONS = (".py", ".yaml", ".txt", ".md", ".mjs")


@cache
def load_make() -> ModuleType:
    """docs/make.py, which is a program and not in a package."""
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert load_make().fill_parts(text) == text, "run: python docs/make.py"


def test_every_generated_part_is_on_a_page() -> None:
    used = re.findall(r"<!-- begin ([\w-]+) -->", "".join(page.read_text() for page in PAGES))
    assert sorted(used) == sorted(load_make().PARTS)


def test_every_block_says_its_language() -> None:
    assert {block.language for block in read_blocks()} <= LANGUAGES


@pytest.mark.parametrize("block", read_blocks("python"), ids=str)
def test_python_blocks_run(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {})
    images = list(tmp_path.glob("*.png"))
    assert images
    assert all(Image.open(path).size == (128, 128) for path in images)


@pytest.mark.parametrize("block", read_blocks("py"), ids=str)
def test_client_blocks_are_python(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", read_blocks("sh", "bash"), ids=str)
def test_shell_blocks_name_what_there_is(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    if block.language == "sh":
        for command in commands_of(block.text):
            check_command(command)


def commands_of(script: str) -> Iterator[list[str]]:
    """Each command of a script, without the variables set for it."""
    for line in script.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                command.append(word)
            elif command:
                yield [one for index, one in enumerate(command) if index or "=" not in one]
                command = []


def check_command(command: list[str]) -> None:
    """Programs, files, modules, extras and our programs' options must exist."""
    program, *rest = command
    if program == "python":
        source = module_path(rest[1]) if rest[0] == "-m" else ROOT / rest[0]
        assert source.exists(), command
        unknown = [word for word in rest if OPTION.fullmatch(word) and f'"{word}"' not in source.read_text()]
        assert not unknown, command
    elif program == "pip":
        check_extras(command)
    elif program == "serve":
        assert rest[0] == "run", command
    elif program == "darkroom":
        assert rest[0] in ("serve", "check") or rest[:2] in [["keys", one] for one in ("new", "list", "revoke")]
    elif program == "bash":
        assert (ROOT / rest[0]).exists(), command
    elif program == "cd":
        assert (ROOT / rest[0]).is_dir(), command
    else:
        assert program in FOREIGN_PROGRAMS, command
    for word in rest:
        if word.endswith(EXTENSIONS) and "=" not in word:
            assert (ROOT / word).exists(), command
        if word.startswith("k8s/"):
            assert (ROOT / word).is_dir(), command


def module_path(name: str) -> Path:
    """The file of a module of ours."""
    path = ROOT.joinpath(*name.split("."))
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def check_extras(command: list[str]) -> None:
    """What `pip install` names of this project."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in command:
        for extras in re.findall(r"^(?:\.|darkroom)\[([\w,]+)\]$", word):
            assert set(extras.split(",")) <= set(known), command


def test_docker_targets_exist() -> None:
    stages = re.findall(r"^FROM \S+ AS (\w[\w-]*)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    named = re.findall(r"--target (\w+)", "".join(page.read_text() for page in PAGES))
    assert named
    assert set(named) <= set(stages)


@pytest.mark.parametrize(
    "arguments",
    [["-m", "serve_app", "keys", "new"], ["benchmarks/same_images.py"], ["tests/load/locustfile.py"]],
    ids=lambda arguments: arguments[-1],
)
def test_cheap_programs_explain_themselves(arguments: list[str]) -> None:
    if "locustfile" in arguments[-1]:
        arguments = ["-m", "locust", "-f", *arguments]
    subprocess.run([sys.executable, *arguments, "--help"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("block", read_blocks("yaml"), ids=str)
def test_yaml_blocks_are_sound(block: Block) -> None:
    """An excerpt without `args` is of an application with the built-in model."""
    excerpt: dict[str, Any] = yaml.safe_load(block.text)
    assert set(excerpt) <= {"args", "deployments"}
    if "args" not in excerpt:
        model = {"name": "model-emoji", "user_config": {"source": "builtin:emoji"}}
        excerpt = {"args": {"models": {"emoji": {}}}, "deployments": [*excerpt["deployments"], model]}
    assert find_application_mistakes(excerpt) == []


@pytest.mark.parametrize("block", read_blocks("json"), ids=str)
def test_json_blocks_are_what_their_page_says(block: Block) -> None:
    content = json.loads(block.text)
    if isinstance(content, list):
        assert TypeAdapter(list[Caller]).validate_json(block.text)
    elif "error" in content:
        assert ProblemResponse.model_validate(content).model_dump() == content
    elif "variables" in content:
        PresetBody.model_validate(content)
    elif "request_id" in content:
        AccessRecord(**content)
    else:
        GenerateBody.model_validate(content)


def test_bodies_sent_by_curl_are_sound() -> None:
    bodies = [body for block in read_blocks("bash") for body in re.findall(r"-d '([^']+)'", block.text)]
    assert len(bodies) > 2
    for body in bodies:
        GenerateBody.model_validate_json(body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors_of(linked), target


def prose_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_reached_from_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in readme] == []


def test_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    steps = re.findall(r"^\d\. (.+?)(?=^\d\. |^\w|\Z)", text, re.DOTALL | re.MULTILINE)
    assert len(steps) == 8
    files = [re.findall(r"`((?:serve_app|docs|tests|configs)/[\w./-]*)`", step) for step in steps]
    assert all(files), "each step names its file"
    named = re.findall(r"`((?:serve_app|docs|tests|configs|k8s|benchmarks|examples)/[\w./-]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_other_pages_name_files_that_exist() -> None:
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        named = re.findall(r"`((?:serve_app|docs|tests|configs|k8s|benchmarks)/[\w./-]*)`", page.read_text())
        assert [path for path in named if not (ROOT / path).exists()] == [], page


def test_operations_knows_every_field_of_keys_and_log_lines() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    keys, logs = text.partition("## Keys")[2].partition("## Logs")[::2]
    assert [name for name in Caller.model_fields if f"`{name}`" not in keys] == []
    logs = logs.partition("## Traces")[0]
    assert [name for name in AccessRecord.__dataclass_fields__ if not re.search(rf"[`\"]{name}[`\"]", logs)] == []


def test_operations_knows_every_metric() -> None:
    source = "".join(path.read_text() for path in (ROOT / "serve_app" / "deployments").glob("*.py"))
    text = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in re.findall(r'"(darkroom_\w+)"', source) if f"`{name}`" not in text] == []


def test_every_alert_leads_to_its_section() -> None:
    for group in yaml.safe_load((ROOT / "k8s" / "monitoring" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            page, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert anchor in anchors_of(ROOT / page)
