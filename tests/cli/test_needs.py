"""What a config needs of a cluster."""

from typing import Any

import pytest

from serve_app.cli.needs import find_lacking_resources

ARGS = {
    "ingress": {"num_cpus": 0.5},
    "models": {"a": {"num_cpus": 1, "num_gpus": 0.6}, "b": {"num_cpus": 2, "num_gpus": 0.6}},
    "safety": {"num_cpus": 1},
}


def lacks(resources: dict[str, float], **options: dict[str, Any]) -> list[str]:
    deployments = [{"name": name.replace("_", "-"), **entry} for name, entry in options.items()]
    ours = {"import_path": "serve_app.app:build", "args": ARGS, "deployments": deployments}
    return find_lacking_resources({"applications": [ours, {"import_path": "other:app"}]}, resources, "this machine")


def test_what_is_enough_is_not_told() -> None:
    assert lacks({"CPU": 4.5, "GPU": 2}) == []


def test_each_resource_that_is_missing_is_a_line() -> None:
    assert lacks({"CPU": 4}) == [
        "needs 2 GPUs for the replicas that run at start (1 x model-a 0.6, 1 x model-b 0.6), this machine has 0",
        "needs 4.5 CPUs for the replicas that run at start "
        "(1 x ingress 0.5, 1 x model-a 1, 1 x model-b 2, 1 x safety 1), this machine has 4",
    ]


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"num_replicas": 3}, "needs 6.5 CPUs"),
        ({"autoscaling_config": {"min_replicas": 0, "max_replicas": 3}}, "needs 3.5 CPUs"),
        ({"ray_actor_options": {"num_cpus": 5}}, "needs 8.5 CPUs"),
        ({"ray_actor_options": {"num_gpus": 1}}, "needs 4.5 CPUs"),
    ],
)
def test_replicas_that_run_at_start_are_counted(options: dict[str, Any], needed: str) -> None:
    (line,) = lacks({"GPU": 9}, model_a=options)
    assert line.startswith(needed)
