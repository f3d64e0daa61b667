"""Where a source is: on this disk, in the package, or on the hub; and which revision of the hub's is meant."""

from typing import Annotated

from pydantic import Field, ValidationInfo

Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
"""A branch, a tag or a commit's hash of a hub repository."""


def is_local(source: str) -> bool:
    """Whether a source is a path, not a hub id."""
    return source.startswith((".", "/", "~"))


def check_revision(revision: str | None, info: ValidationInfo, key: str) -> str | None:
    """A validator's part: the revision, where the source at `key` is a hub id.

    Raises:
        ValueError: it is not one, so nothing would be pinned.
    """
    if revision is None or key not in info.data:  # a source that is wrong has its own message
        return revision
    source = info.data[key]
    if source is None:
        raise ValueError(f"must go with {key}: there is no hub id")
    if is_local(source) or source.startswith("builtin:"):
        raise ValueError(f"must go with a hub id at {key}, and {source} is none")
    return revision
