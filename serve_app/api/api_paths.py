"""Which API a path belongs to. Error responses and metrics both ask here."""

from collections.abc import Mapping
from typing import Any, Literal

ApiName = Literal["openai", "a1111", "v1", "txt2img", "other"]

API_PATHS: dict[str, ApiName] = {
    "/v1/images": "openai",
    "/v1/models": "openai",
    "/sdapi": "a1111",
    "/internal": "a1111",
    "/v1": "v1",
    "/txt2img": "txt2img",
}
"""Each API's paths, without the slash at the end. The first that matches decides."""


def route_path(scope: Mapping[str, Any]) -> str:
    """The path of a request below the application's `route_prefix`, which ASGI servers give as `root_path`."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def api_of(path: str) -> ApiName:
    """The API that a path belongs to, "other" where it belongs to none."""
    for prefix, api in API_PATHS.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return api
    return "other"
