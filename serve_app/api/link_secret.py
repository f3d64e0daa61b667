"""The secret that signs links to results: from a file of the operator's, from the results' folder, or of this start."""

import os
import secrets
from pathlib import Path

from fsspec.core import split_protocol

from serve_app.config import ResultsConfig
from serve_app.errors import ConfigError

LEAST_BYTES = 32
MADE_FILE = ".link-secret"


def read_secret(config: ResultsConfig, of_this_start: bytes) -> bytes:
    """The secret of every ingress replica: `of_this_start` where results are in memory and go with the process.

    In a folder, the first replica writes one, and all others read it.

    Raises:
        ConfigError: a file cannot be read or written, or is too short.
    """
    try:
        if config.secret_file is not None:
            return _checked(Path(config.secret_file))
        if config.scheme == "memory":
            return of_this_start
        return _made_in(Path(split_protocol(config.url)[1]).expanduser())
    except OSError as error:
        raise ConfigError(f"results.secret_file: {error}") from error


def _made_in(folder: Path) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    file, part = folder / MADE_FILE, folder / f"{MADE_FILE}.{secrets.token_hex(8)}"
    if not file.exists():
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(secrets.token_hex(LEAST_BYTES))
        try:
            os.link(part, file)  # only the first of several replicas succeeds
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return _checked(file)


def _checked(file: Path) -> bytes:
    secret = file.read_bytes().strip()
    if len(secret) < LEAST_BYTES:
        raise ConfigError(f"results.secret_file: {file} must hold at least {LEAST_BYTES} bytes, got {len(secret)}")
    return secret
