"""Large imports are not slowed down by garbage collection, and their objects are not looked at again."""

import gc
from collections.abc import Iterator

import pytest

from serve_app.models.paused_gc import paused_gc


@pytest.fixture(autouse=True)
def nothing_stays_frozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_collection_pauses_and_what_was_made_is_frozen() -> None:
    before = gc.get_freeze_count()
    with paused_gc():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]  # type: ignore[var-annotated]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_collection_goes_on_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), paused_gc():
        raise ImportError
    assert gc.isenabled()
