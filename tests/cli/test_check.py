"""`darkroom check`: one line for each mistake, all of them at once, within seconds."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli.commands import app
from tests.cli.config_files import CONFIGS, Section, deployment, write_changed

USER_CONFIG = "deployments.model-emoji.user_config"
INGRESS = "deployments.ingress.user_config"


def run_check(path: Path) -> tuple[int, str, list[str]]:
    """The exit code, standard output, and the lines of standard error without the file's name."""
    result = CliRunner().invoke(app, ["check", str(path)])
    lines = result.stderr.splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines), result.stderr
    return result.exit_code, result.stdout, [line.removeprefix(f"{path}: ") for line in lines]


def application(document: Section) -> Section:
    return document["applications"][0]


def emoji(document: Section) -> Section:
    return deployment(document, "model-emoji")


def emoji_config(document: Section) -> Section:
    return emoji(document)["user_config"]


def ingress_config(document: Section) -> Section:
    return deployment(document, "ingress")["user_config"]


def defaults(document: Section) -> Section:
    return ingress_config(document)["models"]["emoji"]["defaults"]


def scale(**options: object) -> Callable[[Section], object]:
    return lambda document: emoji(document).update(autoscaling_config=options)


CASES: dict[str, tuple[Callable[[Section], object], list[str]]] = {
    "a key of a model": (
        lambda document: emoji_config(document).update(dtpe="float16"),
        [f"{USER_CONFIG}.dtpe: is not a key; did you mean dtype?"],
    ),
    "a key of the file": (
        lambda document: document.update(htp_options={}),
        ["htp_options: is not a key; did you mean http_options?"],
    ),
    "a key of Serve's options": (
        lambda document: emoji(document).update(max_ongoing_request=3),
        ["deployments.model-emoji.max_ongoing_request: is not a key; did you mean max_ongoing_requests?"],
    ),
    "a key of the application": (
        lambda document: application(document).update(route_prefx="/"),
        ["route_prefx: is not a key; did you mean route_prefix?"],
    ),
    "a key of args": (
        lambda document: application(document)["args"].update(gpu=2),
        ["args.gpu: is not a key; did you mean gpus?"],
    ),
    "a value of Serve's options": (
        lambda document: document["http_options"].update(port="x"),
        ["http_options.port: must be a valid integer, unable to parse string as an integer, got 'x'"],
    ),
    "replicas": (
        scale(min_replicas=4, max_replicas=3),
        ["deployments.model-emoji.autoscaling_config.min_replicas: must be at most max_replicas (3), got 4"],
    ),
    "replicas without a maximum": (
        scale(min_replicas=2),
        ["deployments.model-emoji.autoscaling_config.min_replicas: must be at most max_replicas (1), got 2"],
    ),
    "first replicas": (
        scale(min_replicas=2, max_replicas=3, initial_replicas=1),
        ["deployments.model-emoji.autoscaling_config.initial_replicas: must be at least min_replicas (2), got 1"],
    ),
    "a value of autoscaling": (
        scale(min_replicas=-1, upscale_delay_s="x"),
        [
            "deployments.model-emoji.autoscaling_config.min_replicas: must be at least 0, got -1",
            "deployments.model-emoji.autoscaling_config.upscale_delay_s: must be a valid number, unable to parse "
            "string as a number, got 'x'",
        ],
    ),
    "a policy that only the server can import": (
        scale(max_replicas=2, policy={"policy_function": "no.such.module:policy"}),
        [],
    ),
    "a model's name": (
        lambda document: ingress_config(document).update(default_model="emojy"),
        [f"{INGRESS}.default_model: must be one of emoji, got 'emojy'"],
    ),
    "a built-in model's name": (
        lambda document: emoji_config(document).update(source="builtin:emojy"),
        [f"{USER_CONFIG}.source: must be one of builtin:emoji, a path or a hub id, got 'builtin:emojy'"],
    ),
    "a deployment's name": (
        lambda document: emoji(document).update(name="model-emojy"),
        [
            "deployments.model-emojy: is not a deployment; did you mean model-emoji?",
            f"{USER_CONFIG}.source: must be given",
        ],
    ),
    "no source": (
        lambda document: emoji_config(document).pop("source"),
        [f"{USER_CONFIG}.source: must be given"],
    ),
    "no user_config": (
        lambda document: emoji(document).pop("user_config"),
        [f"{USER_CONFIG}.source: must be given"],
    ),
    "no deployments": (
        lambda document: application(document).pop("deployments"),
        [f"{USER_CONFIG}.source: must be given"],
    ),
    "a path": (
        lambda document: emoji_config(document).update(source="./no/such/model", loras={"style": "/no/style"}),
        [
            f"{USER_CONFIG}.source: must exist on this machine, got './no/such/model'",
            f"{USER_CONFIG}.loras.style: must exist on this machine, got '/no/style'",
        ],
    ),
    "a file that is mounted where the server runs": (
        lambda document: ingress_config(document).update(keys={"file": "/no/such/keys.json"}),
        [],
    ),
    "a sampler": (
        lambda document: defaults(document).update(sampler="warp", num_inference_steps=500),
        [
            f"{INGRESS}.models.emoji.defaults.sampler: must be one of",
            f"{INGRESS}.models.emoji.defaults.num_inference_steps: must be between 1 and 150, got 500",
        ],
    ),
    "GPUs": (
        lambda document: application(document)["args"].update(gpus=1, models={"emoji": {"num_gpus": 2}}),
        ["args.gpus: must be at least 2 for the replicas that run at start (1 x model-emoji 2), got 1"],
    ),
    "GPUs at the most replicas": (
        lambda document: (
            application(document)["args"].update(max_gpus=2, gpus=1, models={"emoji": {"num_gpus": 0.4}}),
            emoji(document).update(autoscaling_config={"min_replicas": 2, "max_replicas": 5}),
        ),
        ["args.max_gpus: must be at least 3 for the replicas that may run (5 x model-emoji 0.4), got 2"],
    ),
    "limits that the ingress replaces": (
        lambda document: emoji(document).update(max_ongoing_requests=4, max_queued_requests=10),
        [
            f"deployments.model-emoji.{key}: must not be given for a model: the ingress keeps its queue (max_waiting), "
            "and Serve's limits are a fuse far above"
            for key in ("max_ongoing_requests", "max_queued_requests")
        ],
    ),
    "an import path": (
        lambda document: application(document).update(import_path="serve_app.app:bild"),
        ["import_path: must be serve_app.app:build, got 'serve_app.app:bild'"],
    ),
    "no application of ours": (
        lambda document: application(document).update(import_path="other:app"),
        ["applications: must have an entry with import_path: serve_app.app:build"],
    ),
    "no applications": (
        lambda document: document.pop("applications"),
        ["applications: must be given"],
    ),
    "a deployment that is no section": (
        lambda document: application(document).update(deployments=["ingress"]),
        [
            "deployments.0: must be keys with values, got 'ingress'",
            f"{USER_CONFIG}.source: must be given",
        ],
    ),
    "deployments that are no list": (
        lambda document: application(document).update(deployments=5),
        ["deployments: must be a list, got 5", f"{USER_CONFIG}.source: must be given"],
    ),
    "an application that is no section": (
        lambda document: document["applications"].append("darkroom"),
        ["applications.1: must be keys with values, got 'darkroom'"],
    ),
    "args that are no section": (
        lambda document: application(document).update(args=["emoji"]),
        [
            "args: must be keys with values, got ['emoji']",
            "deployments.model-emoji: is not a deployment; the keys are ingress",
        ],
    ),
    "a deployment given twice": (
        lambda document: application(document)["deployments"].append(emoji(document)),
        ["deployments.model-emoji: must be given once"],
    ),
    "a second application": (
        lambda document: document["applications"].append({"name": "b", "import_path": "serve_app.app:build"}),
        [
            "applications: Found duplicate applications for route prefix",
            "applications.b.args.models: must be given",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_mistake_is_a_line_with_its_key(case: str, tmp_path: Path) -> None:
    change, expected = CASES[case]
    path = write_changed(tmp_path / "config.yaml", change)
    code, answer, lines = run_check(path)
    assert len(lines) == len(expected), lines
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines
    assert (code, answer) == ((1, "") if expected else (0, f"{path}: valid\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [\n", ["line 3, column 1: must be YAML: "]),
        ("a: 1\n\tb: 2\n", ["line 2, column 1: must be YAML: found character '\\t'"]),
        ("a: \x00", ["must be YAML: unacceptable character #x0000: special characters are not allowed"]),
        ("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n", ["line 4: c is given twice, first in line 3", "line 5: a is given twice"]),
        ("", ["must be keys with values, such as applications:"]),
        ("- a\n", ["must be keys with values, such as applications:"]),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_its_line(text: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    code, answer, lines = run_check(path)
    assert (code, answer) == (1, "")
    assert len(lines) == len(expected), lines
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert run_check(tmp_path / "none.yaml") == (1, "", ["does not exist"])
    assert run_check(tmp_path) == (1, "", ["cannot be read: Is a directory"])
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: \xe9".encode("latin-1"))
    assert run_check(latin) == (1, "", ["must be UTF-8, byte 3 is not"])


@pytest.mark.parametrize("name", ["local.yaml", "cpu-demo.yaml", "prod.yaml"])
def test_the_shipped_configs_have_no_mistakes(name: str) -> None:
    assert run_check(CONFIGS / name) == (0, f"{CONFIGS / name}: valid\n", [])


def test_a_path_of_another_machine_may_be_accepted(tmp_path: Path) -> None:
    path = write_changed(tmp_path / "config.yaml", lambda document: emoji_config(document).update(source="/models/sd"))
    result = CliRunner().invoke(app, ["check", "--ignore-paths", str(path)])
    assert (result.exit_code, result.output) == (0, f"{path}: valid\n")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    def change(document: Section) -> None:
        emoji_config(document).update(dtpe="float16")
        emoji(document).update(max_ongoing_request=3)
        defaults(document).update(sampler="warp")
        document.update(proxy_locatoin="HeadOnly")

    _, _, lines = run_check(write_changed(tmp_path / "config.yaml", change))
    assert sorted(line.partition(": ")[0] for line in lines) == [
        f"{INGRESS}.models.emoji.defaults.sampler",
        "deployments.model-emoji.max_ongoing_request",
        f"{USER_CONFIG}.dtpe",
        "proxy_locatoin",
    ]


def test_it_takes_seconds_and_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from serve_app.cli.commands import app\n"
        "try:\n    app()\n"
        "finally:\n    print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])\n"
    )
    path = write_changed(tmp_path / "config.yaml", lambda document: emoji_config(document).update(dtpe="float16"))
    start = time.monotonic()
    run = subprocess.run([sys.executable, "-c", program, "check", str(path)], capture_output=True, text=True)
    assert time.monotonic() - start < 10
    assert run.returncode == 1
    assert run.stdout == "[]\n"
    # A pipe is no terminal: no colours, and a line is not broken at 80 characters.
    assert run.stderr == f"{path}: {USER_CONFIG}.dtpe: is not a key; did you mean dtype?\n"


def test_python_m_is_the_command() -> None:
    command = [sys.executable, "-m", "serve_app", "check", str(CONFIGS / "local.yaml")]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "40"})
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{CONFIGS / 'local.yaml'}: valid\n"
