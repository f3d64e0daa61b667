"""The names of the deployments, as the config file and Serve's logs and metrics have them."""

INGRESS = "ingress"
SAFETY = "safety"


def deployment_of(model: str) -> str:
    """The name of a model's deployment."""
    return f"model-{model}"
