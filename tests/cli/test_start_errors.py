"""What a failed start says, from Serve's status."""

from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview

from serve_app.cli.start_errors import find_start_errors, find_waiting

TRACEBACK = """A replica failed to start with exception. Retrying 1 more time(s). Error:
\x1b[36mray::ServeReplica:darkroom:model-sd15.initialize_and_get_metadata()\x1b[39m (pid=1)
  File "replica.py", line 102, in load
    raise first
serve_app.errors.ModelLoadError: source: /models/sd15 is broken

The above exception was the direct cause of the following exception:

  File "live_config.py", line 58, in refuse
    raise second
{error}
"""
OURS = """serve_app.errors.ConfigError: deployments.model-sd15.user_config.source: /models/sd15 is broken
deployments.model-sd15.user_config.vae: /models/vae is broken"""


def overview(status: str, message: str = "", deployment: str = "") -> ApplicationStatusOverview:
    deployments: dict[str, object] = {"ingress": "", "model-sd15": deployment}
    found = {
        name: DeploymentStatusOverview(status="UPDATING", status_trigger="UNSPECIFIED", replica_states={}, message=text)  # type: ignore[arg-type]
        for name, text in deployments.items()
    }
    return ApplicationStatusOverview(status=status, message=message, last_deployed_time_s=0, deployments=found)  # type: ignore[arg-type]


def test_mistakes_in_the_config_are_told_at_the_first_attempt() -> None:
    assert find_start_errors(overview("DEPLOYING", deployment=TRACEBACK.format(error=OURS))) == [
        "deployments.model-sd15.user_config.source: /models/sd15 is broken",
        "deployments.model-sd15.user_config.vae: /models/vae is broken",
    ]


def test_another_error_is_told_once_serve_has_given_up() -> None:
    message = TRACEBACK.replace("serve_app.errors.ModelLoad", "Key").format(
        error="torch.OutOfMemoryError: CUDA is full"
    )
    assert find_start_errors(overview("DEPLOYING", deployment=message)) == []
    assert find_start_errors(overview("DEPLOY_FAILED", deployment=message)) == [
        "deployments.model-sd15: torch.OutOfMemoryError: CUDA is full"
    ]


def test_an_application_that_cannot_be_built_has_a_message_of_its_own() -> None:
    message = "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'other'\n"
    assert find_start_errors(overview("DEPLOY_FAILED", message)) == ["ModuleNotFoundError: No module named 'other'"]
    assert find_start_errors(overview("DEPLOY_FAILED", "It was\n  refused.")) == ["It was refused."]


def test_a_deployment_without_room_is_told() -> None:
    message = "Deployment 'model-sd15' has 1 replicas that have taken more than 30s to be scheduled.\nResources: ..."
    assert find_waiting(overview("DEPLOYING", deployment=message)) == {
        "model-sd15": f"deployments.model-sd15: {message.replace(chr(10), ' ')}"
    }
    assert find_start_errors(overview("DEPLOYING", deployment=message)) == []
