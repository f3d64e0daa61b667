"""A body for each route that takes one, and the shape that its errors must have."""

import base64
from typing import Any

from tests.sample_images import as_file, half_mask, photo

IMAGE = base64.b64encode(as_file(photo())).decode()
MASK = base64.b64encode(as_file(half_mask())).decode()
BODIES: dict[str, dict[str, Any]] = {
    "/txt2img/": {"prompt": "a cat"},
    "/v1/generate": {"prompt": "a cat", "image": IMAGE, "mask": MASK, "hires": {}},
    "/v1/presets/avatar": {"variables": {"subject": "a cat"}},
    "/v1/images/generations": {"prompt": "a cat"},
    "/sdapi/v1/txt2img": {"prompt": "a cat"},
    "/sdapi/v1/img2img": {"init_images": [IMAGE], "mask": MASK, "inpaint_full_res": True},
    "/sdapi/v1/png-info": {"image": IMAGE},
    "/sdapi/v1/extra-single-image": {"image": IMAGE, "resize_mode": 1},
    "/sdapi/v1/options": {},
    "/internal/progress": {"id_task": "a"},
}
FORMS = ("/v1/images/edits", "/v1/images/variations")
JSON = {"content-type": "application/json"}


def is_problem(path: str, answer: dict[str, Any]) -> bool:
    """Whether an error has the shape of the path's API."""
    if path.startswith(("/sdapi", "/internal")):
        return answer.keys() == {"error", "detail", "body", "errors"}
    wanted = {"message", "type", "param", "code"} if "/images/" in path else {"code", "message", "field"}
    return wanted <= answer["error"].keys()
