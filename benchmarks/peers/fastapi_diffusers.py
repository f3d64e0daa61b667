"""The talk's server: FastAPI, the pipeline loaded once, one image at a time.

python -m benchmarks.peers.fastapi_diffusers --port 9001
"""

import argparse
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response

from benchmarks.peers.stock import StockPipeline


def create_app(source: str) -> FastAPI:
    """FastAPI runs the plain function in its thread pool."""
    app = FastAPI()
    stock = StockPipeline(source)

    @app.post("/txt2img/")
    def txt2img(body: dict[str, Any]) -> Response:
        return Response(stock.draw([body])[0], media_type="image/png")

    @app.get("/readyz")
    def readyz() -> str:
        return "ready"

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="builtin:emoji")
    options = parser.parse_args()
    uvicorn.run(create_app(options.model), port=options.port, log_level="warning")
