"""The talk's first client: one fixed prompt, the image into output.png.

python examples/python/fixed.py [URL]
"""

import json
import sys
import urllib.request

BODY = {
    "prompt": "A potrait of a man , comic styled, detailed hair, smiling face",
    "negative_prompt": "nsfw, bad eyes, bad teeth",
    "num_inference_steps": 40,
    "width": 512,
    "height": 512,
    "guidance_scale": 7.5,
}


def main(url: str = "http://localhost:8000/txt2img/") -> None:
    """Post the body, keep the answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(BODY).encode(), headers)
    with urllib.request.urlopen(request) as answer, open("output.png", "wb") as file:
        file.write(answer.read())


if __name__ == "__main__":
    main(*sys.argv[1:2])
