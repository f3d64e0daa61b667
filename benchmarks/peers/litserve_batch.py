"""LitServe's dynamic batching over the stock pipeline, rows of equal parameters together.

python -m benchmarks.peers.litserve_batch --port 9002
"""

import argparse
from typing import Any

import litserve
from fastapi import Response

from benchmarks.peers.stock import StockPipeline, equal_groups

MAX_ROWS = 16
WAIT_SECONDS = 0.05


class Batched(litserve.LitAPI):
    """One worker. It answers when the whole batch is done: that is all LitServe's batching offers."""

    def __init__(self, source: str) -> None:
        super().__init__(api_path="/txt2img/", max_batch_size=MAX_ROWS, batch_timeout=WAIT_SECONDS)
        self._source = source

    def setup(self, device: str) -> None:
        """See LitAPI."""
        self._stock = StockPipeline(self._source)

    def decode_request(self, request: dict[str, Any], **_: Any) -> dict[str, Any]:
        """See LitAPI."""
        return request

    def predict(self, x: list[dict[str, Any]], **_: Any) -> list[bytes]:
        """See LitAPI."""
        pictures: list[bytes] = [b""] * len(x)
        for group in equal_groups(x):
            for index, picture in zip(group, self._stock.draw([x[index] for index in group]), strict=True):
                pictures[index] = picture
        return pictures

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """See LitAPI."""
        return output

    def encode_response(self, output: bytes, **_: Any) -> Response:
        """See LitAPI."""
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="builtin:emoji")
    options = parser.parse_args()
    server = litserve.LitServer(Batched(options.model), accelerator="cpu", timeout=False, healthcheck_path="/readyz")
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")
