"""Which API a path belongs to."""

import pytest

from serve_app.api.api_paths import api_of


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/images/generations", "openai"),
        ("/v1/models", "openai"),
        ("/v1/models/emoji", "openai"),
        ("/v1/generate", "v1"),
        ("/v1/imagesque", "v1"),
        ("/sdapi/v1/txt2img", "a1111"),
        ("/internal/progress", "a1111"),
        ("/txt2img", "txt2img"),
        ("/txt2img/", "txt2img"),
        ("/healthz", "other"),
        ("/internals", "other"),
    ],
)
def test_a_path_belongs_to_one_api(path: str, api: str) -> None:
    assert api_of(path) == api
