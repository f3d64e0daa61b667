"""`python -m tests.api.fake_server PORT`: the application over the fake service, in a process of its own."""

import sys

import uvicorn

from serve_app.api.app import create_app
from tests.api.fakes import CONFIG, FakeService

if __name__ == "__main__":
    config = CONFIG.model_copy(update={"max_body_bytes": 64 * 2**20})
    uvicorn.run(create_app(FakeService(config), config), port=int(sys.argv[1]), log_level="error")
