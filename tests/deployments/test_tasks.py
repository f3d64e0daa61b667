"""Named requests on a replica: whose they are, how far each image is, and which previews are asked for."""

from serve_app.deployments.tasks import Tasks
from serve_app.engine.image_future import ImageFuture
from serve_app.requests.events import Progress, Queued
from serve_app.requests.request import CallerContext

MINE = CallerContext(task="t", owner="me")


def test_progress_is_that_of_the_least_advanced_image_whoever_wrote_last() -> None:
    tasks, first, second = Tasks(), ImageFuture(), ImageFuture()
    with tasks.running(MINE, first), tasks.running(MINE, second):
        assert tasks.progress_of("t", "me") == Queued(0, 0.0)
        tasks.note(MINE, first, Progress(3, 20))
        assert tasks.progress_of("t", "me") == Progress(3, 20), "the other has not begun"
        tasks.note(MINE, second, Progress(9, 20))
        assert tasks.progress_of("t", "me") == Progress(3, 20)
        tasks.note(MINE, first, Progress(4, 20))
        assert tasks.progress_of("t", "me") == Progress(4, 20)
    assert tasks.progress_of("t", "me") is None


def test_each_image_keeps_its_latest_preview() -> None:
    tasks, first, second = Tasks(), ImageFuture(), ImageFuture()
    with tasks.running(MINE, first), tasks.running(MINE, second):
        tasks.note(MINE, first, Progress(3, 20, preview=b"first"))
        tasks.note(MINE, second, Progress(9, 20, preview=b"second"))
        tasks.note(MINE, first, Progress(4, 20))
        assert tasks.progress_of("t", "me") == Progress(4, 20, preview=b"first")


def test_a_name_belongs_to_its_owner() -> None:
    tasks, mine, theirs = Tasks(), ImageFuture(), ImageFuture()
    with tasks.running(MINE, mine), tasks.running(CallerContext(task="t", owner="you"), theirs):
        tasks.note(MINE, mine, Progress(3, 20))
        assert tasks.progress_of("t", "you") == Queued(0, 0.0)
        assert tasks.cancel("t", "you") == 1
        assert theirs.cancelled()
        assert not mine.cancelled()
        assert tasks.interrupt("t", "me") == 1


def test_an_image_has_a_preview_a_second_however_often_it_is_asked_for() -> None:
    times = [0.0]
    tasks, image = Tasks(lambda: times[-1]), ImageFuture()
    rendered = []
    with tasks.running(MINE, image):
        for time in (0.0, 0.1, 0.5, 0.9, 1.0, 1.1, 1.9, 2.0):
            times.append(time)
            tasks.progress_of("t", "me", preview=True)
            rendered += [time] * image.take_preview_request()
    assert rendered == [0.0, 1.0, 2.0]
