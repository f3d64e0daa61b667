"""The talk's server: FastAPI, the pipeline loaded once, one image at a time.

python -m benchmarks.peers.fastapi_diffusers --port 9001
"""

import argparse

import uvicorn

from benchmarks.peers.one_at_a_time import create_app
from benchmarks.peers.stock import StockPipeline

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="builtin:emoji")
    options = parser.parse_args()
    stock = StockPipeline(options.model)
    uvicorn.run(create_app(lambda body: stock.draw([body])[0]), port=options.port, log_level="warning")
