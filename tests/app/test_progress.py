"""What the page shows of work that runs: steps with their time, and pictures of views that stay cheap."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
import torch

from keyorbit.app.parts import followed
from keyorbit.app.progress import Looks, Progress, Times
from keyorbit.app.visits import Visits
from keyorbit.errors import InputError


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_steps_tell_how_long_they_take_and_took():
    clock, times = Clock(), Times()
    progress = Progress(("cut", "views", "points"), times, clock)
    assert [stage.state for stage in progress.read()] == ["now", "next", "next"]
    progress.begin("cut")
    clock.now += 0.2
    progress.begin("views")
    with progress.noting("waiting for others"):
        clock.now += 60
        assert progress.read()[1].note == "waiting for others"
    clock.now += 4
    progress.at(1, 4)
    done, now, after = progress.read()
    assert (done.state, done.time) == ("done", "less than 1 s")
    assert (now.state, now.share, now.time) == ("now", 0.25, "about 10 s left")  # a minute of waiting does not count
    assert (after.state, after.time) == ("next", "")
    progress.begin("points")
    clock.now += 3
    progress.end()
    progress.end()
    assert [stage.time for stage in progress.read()] == ["less than 1 s", "4 s", "3 s"]
    again = Progress(("cut", "views", "points"), times, clock)
    again.begin("views")
    clock.now += 1
    assert [stage.time for stage in again.read()] == ["", "about 3 s left", "about 3 s"]
    assert again.read()[1].share == 0.25
    clock.now += 60
    assert again.read()[1].share == 0.95  # it takes longer than it did


def test_the_steps_are_on_the_page_with_their_pictures():
    progress = Progress(("a<b", "c"), Times())
    progress.begin("a<b")
    progress.at(1, 2)
    progress.show("views", "data:1")
    progress.show("views", "data:2")
    page = progress.html()
    assert 'aria-current="step"' in page
    assert "a&lt;b" in page
    assert 'aria-valuenow="50"' in page
    assert "data:1" not in page
    assert page.count("data:2") == 1
    ended = progress.html("no <picture>")
    assert "no &lt;picture&gt;" in ended
    assert "<li" not in ended  # nothing is done


@pytest.mark.parametrize(("each", "pictures"), [(0.05, 22), (0.5, 3), (1.0, 1), (5.0, 1)])
def test_looking_at_views_takes_a_small_share_of_their_time(each, pictures):
    """28 steps of a second; a look may take a twentieth of one or five."""
    clock = Clock()
    looks, seen = Looks(clock=clock), []

    def decode():
        clock.now += each
        return torch.zeros(1, 3, 2, 2)

    for done in range(1, 29):
        clock.now += 1
        if looks.look(done, 28, decode) is not None:
            seen.append(done)
    assert len(seen) == pictures
    assert seen[0] == 6
    assert seen[-1] < 28
    # But for the first, whose cost nobody knows.
    assert each * pictures <= max(0.1 * 28, each)


GRADIO = SimpleNamespace(Error=lambda words, **_: RuntimeError(words))


def follow(tmp_path, work, most=100):
    """What the page is shown of the work, the error that ends it, and its errand."""
    errand, progress = Visits(tmp_path).errand("me"), Progress(("a", "b"), Times())

    async def run():
        shown, steps = [], followed(GRADIO, errand, progress, lambda: work(progress))
        try:
            async for part in steps:
                shown.append(part)
                if len(shown) == most:
                    await steps.aclose()
        except RuntimeError as error:
            return shown, str(error)
        return shown, ""

    return *asyncio.run(run()), errand


def test_work_is_followed_to_its_result(tmp_path):
    shown, wrong, errand = follow(tmp_path, lambda progress: progress.begin("a") or 7)
    assert (shown[-1], wrong, errand.over()) == (("", 7), "", False)
    assert all("ko-progress" in page for page, _ in shown[:-1])


def test_work_that_fails_leaves_no_steps_on_the_page(tmp_path):
    def fails(progress):
        progress.begin("a")
        raise InputError("no <picture>")

    shown, wrong, _ = follow(tmp_path, fails)
    assert "no &lt;picture&gt;" in shown[-1][0]
    assert 'aria-current="step"' not in shown[-1][0]
    assert wrong == "no &lt;picture&gt;"


def test_work_that_nobody_follows_is_cancelled(tmp_path):
    go = threading.Event()
    _, _, errand = follow(tmp_path, lambda progress: progress.begin("a") or go.wait(0.6), most=1)
    assert errand.over()
