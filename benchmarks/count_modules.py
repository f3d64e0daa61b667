"""Count the modules of `serve_app` that a plain `/txt2img/` request enters, in the ingress and in the replica.

    python benchmarks/count_modules.py configs/local.yaml

It deploys the config on a Ray cluster of its own, whose workers note under `sys.setprofile` which modules' functions
are called between two marker files, and prints the names.
"""

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import ray
import yaml
from ray import serve
from ray.serve import context
from ray.serve.schema import ServeDeploySchema

FOLDER = "DARKROOM_COUNT_MODULES"
BODY = {"prompt": "red apple on a blue background", "seed": 1}


def watch_modules() -> None:
    """Run in each worker at its start: note the modules entered while `start` is there and `stop` is not."""
    folder = Path(os.environ[FOLDER])
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and (name := frame.f_globals.get("__name__", "")).startswith("serve_app"):
            entered.add(name)

    def follow_markers() -> None:
        while not (folder / "start").exists():
            time.sleep(0.02)
        entered.clear()
        while not (folder / "stop").exists():
            time.sleep(0.02)
        (folder / f"{os.getpid()}.txt").write_text("\n".join(sorted(entered)))

    threading.Thread(target=follow_markers, daemon=True).start()
    threading.setprofile(note)
    sys.setprofile(note)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def count(config: Path) -> dict[str, list[str]]:
    """The modules of each process that entered any."""
    document = yaml.safe_load(config.read_text())
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        runtime_env = {"worker_process_setup_hook": watch_modules, "env_vars": {FOLDER: folder}}
        ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, runtime_env=runtime_env)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        client: Any = context._get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(document), _blocking=False)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
            deadline = time.monotonic() + 180
            while time.monotonic() < deadline:
                try:
                    if http.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.5)
            http.post("/txt2img/", json=BODY).raise_for_status()
            time.sleep(2)
            (Path(folder) / "start").touch()
            time.sleep(0.5)
            http.post("/txt2img/", json={"prompt": "rocket on a black background", "seed": 2}).raise_for_status()
        (Path(folder) / "stop").touch()
        time.sleep(1)
        found = {path.stem: path.read_text().split() for path in Path(folder).glob("*.txt")}
        serve.shutdown()
        ray.shutdown()
    return {process: modules for process, modules in found.items() if modules}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    found = count(parser.parse_args().config)
    for process, modules in found.items():
        print(f"process {process}: {len(modules)}", *modules, sep="\n  ")
    print("distinct modules:", len({module for modules in found.values() for module in modules}))


if __name__ == "__main__":
    main()
