"""`darkroom check`: every mistake of a file at once, a line each, without loading a model."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serve_app.cli.commands import app

CONFIGS = Path(__file__).parents[2] / "configs"


def local_config() -> dict[str, Any]:
    """A sound file."""
    return yaml.safe_load((CONFIGS / "local.yaml").read_text())


def check(path: Path) -> tuple[int, list[str]]:
    """The exit code, and what is printed on either stream."""
    result = CliRunner().invoke(app, ["check", str(path)])
    return result.exit_code, result.output.splitlines()


def write(folder: Path, document: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("name", ["local.yaml", "cpu-demo.yaml", "prod.yaml"])
def test_the_shipped_configs_are_valid(name: str) -> None:
    code, lines = check(CONFIGS / name)
    assert code == 0
    assert lines[-1] == f"{CONFIGS / name}: valid"


def spoil(document: dict[str, Any], path: str, value: object) -> None:
    """Set the value at a path; `#name` finds an entry of a list by its name."""
    *parents, last = path.split("/")
    at: Any = document
    for key in parents:
        at = next(one for one in at if one["name"] == key[1:]) if key.startswith("#") else at.setdefault(key, {})
    at[last] = value


MODEL = "applications/#darkroom/deployments/#model-emoji"
INGRESS = "applications/#darkroom/deployments/#ingress"
AT = "applications.darkroom"
OF_MODEL, OF_INGRESS = f"{AT}.deployments.model-emoji", f"{AT}.deployments.ingress"


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("htp_options", {}, "htp_options: is not a key; did you mean http_options?"),
        ("http_options/prt", 1, "http_options.prt: is not a key; did you mean port?"),
        ("http_options/port", "x", "http_options.port: must be a valid integer"),
        ("applications/#darkroom/route_prefx", "/", f"{AT}.route_prefx: is not a key; did you mean route_prefix?"),
        (f"{MODEL}/max_ongoing_request", 3, f"{OF_MODEL}.max_ongoing_request: is not a key"),
        (
            f"{MODEL}/user_config/dtpe",
            "x",
            f"{OF_MODEL}.user_config.dtpe: is not a key; did you mean dty",
        ),
        (f"{MODEL}/user_config/dtype", "float8", f"{OF_MODEL}.user_config.dtype: must be 'auto'"),
        (
            f"{MODEL}/user_config/engine",
            {"max_rowss": 3},
            f"{OF_MODEL}.user_config.engine.max_rowss: ",
        ),
        (f"{MODEL}/user_config", {}, f"{OF_MODEL}.user_config.source: must be given"),
        (
            f"{MODEL}/name",
            "model-emojy",
            f"{AT}.deployments.model-emojy: is not a deployment; did you mean model-emoji?",
        ),
        (
            f"{MODEL}/autoscaling_config",
            {"min_replicas": 3, "max_replicas": 2},
            f"{OF_MODEL}.autoscaling_config",
        ),
        (
            f"{INGRESS}/user_config/default_model",
            "sdxl",
            f"{OF_INGRESS}.user_config.default_model: must be",
        ),
        (
            f"{INGRESS}/user_config/models/emoji/defaults/sampler",
            "warp",
            f"{OF_INGRESS}.user_config.models.emoji.defaults.sampler: must be one of euler",
        ),
        (
            f"{INGRESS}/user_config/models/emoji/limits",
            {"max_num_inference_steps": 10},
            f"{OF_INGRESS}.user_config.models.emoji.defaults.num_inference_steps: must be between 1 and 10",
        ),
        (
            "applications/#darkroom/args/models/emoji",
            {"num_gpus": 1.5},
            f"{AT}.args.models.emoji.num_gpus: must be at most 1 or a whole number",
        ),
        ("applications/#darkroom/args/modles", {}, f"{AT}.args.modles: is not a key; did you mean models?"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path: Path, path: str, value: object, line: str) -> None:
    document = local_config()
    spoil(document, path, value)
    file = write(tmp_path, document)
    code, lines = check(file)
    assert code == 1
    assert any(found.startswith(f"{file}: {line}") for found in lines), lines
    assert len(lines) <= 3, "one line a mistake"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    document = local_config()
    spoil(document, "http_options/prt", 1)
    spoil(document, f"{MODEL}/user_config/dtpe", 1)
    spoil(document, f"{INGRESS}/user_config/presetz", {})
    code, lines = check(write(tmp_path, document))
    assert code == 1
    assert len(lines) == 3


def test_shares_that_do_not_fit_the_gpus(tmp_path: Path) -> None:
    document = local_config()
    spoil(document, "applications/#darkroom/args/gpus", 1)
    spoil(document, "applications/#darkroom/args/models/emoji", {"num_gpus": 0.6})
    spoil(document, f"{MODEL}/num_replicas", 2)
    code, lines = check(write(tmp_path, document))
    assert code == 1
    assert "args.gpus: must be at least 2" in lines[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "must be YAML"),
        ("- 1", "must be keys with values"),
        ("", "must be keys with values"),
        ("applications: []\n", "valid"),
        ("proxy_location: HeadOnly\n", "applications: must be given"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: str, message: str) -> None:
    code, lines = check(write(tmp_path, content))
    assert message in lines[-1]
    assert code == (0 if message == "valid" else 1)


def test_a_file_that_does_not_exist() -> None:
    code, lines = check(Path("/no/such.yaml"))
    assert (code, lines) == (1, ["/no/such.yaml: cannot be read: No such file or directory"])


def test_a_path_that_is_missing_here_is_a_warning(tmp_path: Path) -> None:
    document = local_config()
    spoil(document, f"{MODEL}/user_config/loras", {"pop": "/no/such.safetensors"})
    code, lines = check(write(tmp_path, document))
    assert code == 0
    assert "warning" in lines[0]
    assert "/no/such.safetensors does not exist on this machine" in lines[0]


def test_it_loads_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from serve_app.cli.commands import app;"
        f"CliRunner().invoke(app, ['check', '{CONFIGS / 'prod.yaml'}']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0
