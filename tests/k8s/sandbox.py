"""A container's restrictions, without a cluster: bubblewrap's command for one."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.k8s.rendered import ROOT, Manifest, Pod

UNITS = {"Mi": 2**20, "Gi": 2**30}
NOT_OF_THE_IMAGE = {"proc", "dev", "tmp", "var", "run"}

Writable = dict[str, int | None]
"""Paths that may be written, to the size of those in memory, bytes."""


def writable_of(pod: Pod, container: Manifest) -> Writable:
    """What a container may write to: its mounts that are not read-only."""
    volumes = {one["name"]: one.get("emptyDir", {}) for one in pod.spec.get("volumes", ())}
    found: Writable = {}
    for mount in container["volumeMounts"]:
        if not mount.get("readOnly"):
            volume = volumes.get(mount["name"], {})
            in_memory = volume.get("medium") == "Memory"
            found[mount["mountPath"]] = to_bytes(volume["sizeLimit"]) if in_memory else None
    return found


def common(first: Writable, second: Writable) -> Writable:
    """What both may write to, at the smaller size."""
    return {path: size and min(size, second[path] or size) for path, size in first.items() if path in second}


def to_bytes(quantity: str) -> int:
    """Kubernetes' `2Gi`, in bytes."""
    number, unit = re.findall(r"^(\d+)(\w+)$", quantity)[0]
    return int(number) * UNITS[unit]


def sandbox(writable: Writable, environment: Mapping[str, str], user: int) -> list[str]:
    """The command in front of a container's own. Its network is empty, so that ports are the container's.

    This machine's files are the image: nothing of them can be written.
    """
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--uid", str(user), "--gid", str(user), "--tmpfs", "/", "--proc", "/proc", "--dev", "/dev"]
    for path in sorted(Path("/").iterdir()):
        if path.is_symlink():
            command += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir() and path.name not in NOT_OF_THE_IMAGE:
            command += ["--ro-bind", str(path), str(path)]
    for path, size in writable.items():
        command += ["--size", str(size), "--tmpfs", path] if size else ["--tmpfs", path]
    for part in (sys.base_prefix, sys.prefix, str(ROOT)):  # of the image, though a CI may have them in /tmp
        command += ["--ro-bind", part, part]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(ROOT), "--clearenv"]
    for name, value in environment.items():
        command += ["--setenv", name, value]
    return command
