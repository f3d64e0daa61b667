"""Which API a path belongs to. Error responses and metrics both ask here."""

from typing import Literal

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


def api_of(path: str) -> ApiName:
    """The API that a path belongs to, "other" where it belongs to none."""
    for prefix, api in API_PATHS.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return api
    return "other"
