"""Our own log lines as they are: JSON, on the process's standard error, beside Serve's."""

import logging


def write_plain_lines() -> None:
    """Let the `darkroom` loggers write their messages, and nothing around them; once for each process."""
    log = logging.getLogger("darkroom")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
