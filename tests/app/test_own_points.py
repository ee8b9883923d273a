"""A visitor's own points: marked on views that a model made, kept as a file, and made keypoints."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

from helpers.worlds import ball, detections, make_world
from keyorbit.app.board import board, take_step
from keyorbit.app.calls import Step
from keyorbit.app.own_points import OwnPoints
from keyorbit.app.seen import Seen
from keyorbit.app.studio import Studio
from keyorbit.app.uploads import called
from keyorbit.app.visits import Left
from keyorbit.detection.marking import mark
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.marks import read_marks


@pytest.fixture
def studio(backend, tmp_path, monkeypatch, few_denoising_steps):
    """How well tokens are fitted is tested elsewhere: a few steps."""
    few = partial(mark, config=MarkConfig(helpers=2, planting=2, steps=1))
    monkeypatch.setattr("keyorbit.detection.marking.mark", few)
    return Studio(backend, untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)), tmp_path)


def picture(color, name="chair"):
    """A picture of a square on a plain ground."""
    drawn = Image.new("RGB", (48, 48), "white")
    drawn.paste(color, (14, 14, 34, 34))
    return ObjectViews(name, drawn)


@pytest.fixture(scope="module")
def seen():
    """What is seen of a ball, whose views a model made."""
    shown = Seen.of(detections(make_world(1))[0], 0, generated=True)
    return replace(shown, masks=ball(side=32))


def click(own, x=0.5, y=0.5, view=0, point=None):
    kind = "create" if point is None else "place"
    take_step(own.work, Step(kind, own.work.revision, point, view, x, y))


def test_points_that_are_clicked_become_keypoints_with_names(studio, seen):
    own = OwnPoints()
    own.take(picture("red"), seen)
    click(own)
    click(own, 0.45, 0.55)
    take_step(own.work, Step("rename", own.work.revision, 1, name=" left   ear "))
    assert own.work.names == ("point 0", "left ear")
    assert [point.clicked for point in own.work.points("chair")] == [(0,), (0,)]
    errand, progress = studio.visits.errand("me"), studio.progress(own=True)
    file = studio.save_points(own, errand)
    kept = read_marks(file)
    assert [(one.name, one.object, one.view) for one in kept] == [("point 0", "", 0), ("left ear", "", 0)]
    tokens = studio.fit(own, errand, progress)
    assert tokens.info.names == ("point 0", "left ear")
    # The file is the same points: 'keyorbit mark --points' makes the same tokens of the picture.
    by_file = mark(studio.backend, [own.marked[0]], kept, MarkConfig(helpers=2, planting=2, steps=1)).tokens
    assert torch.equal(by_file.embedding, tokens.embedding)
    assert [stage.state for stage in progress.read()[:2]] == ["done", "now"]
    shown, _, detection = studio.detect(own.marked[0], tokens, errand, progress)
    assert detection.names == tokens.info.names
    assert shown.count("left ear</text>") == 7
    assert 'aria-label="keypoint 1, left ear"' in shown
    assert all(stage.state == "done" for stage in progress.read())


def test_marks_on_several_pictures_are_kept_and_unmarked_ones_go(seen):
    own = OwnPoints()
    own.take(picture("red"), seen)
    own.take(picture("blue"), seen)
    assert list(own.things) == ["chair 2"]
    click(own)
    own.take(picture("green"), seen)
    assert list(own.things) == ["chair 2", "chair"]
    assert own.work.names == ("point 0",)
    click(own, point=0)
    assert [(one.name, one.object) for one in own.marks] == [("point 0", "chair 2"), ("point 0", "chair")]
    own.take(picture("blue", "another name"), seen)  # the same picture once more
    assert own.work.state.current == "chair 2"
    assert len(own.marked) == 2
    take_step(own.work, Step("clear", own.work.revision))
    assert own.marks == ()
    take_step(own.work, Step("undo", own.work.revision))
    assert len(own.marks) == 2


def test_without_a_point_and_without_a_visitor_nothing_is_fitted(studio, seen):
    own, errand = OwnPoints(), studio.visits.errand("me")
    own.take(picture("red"), seen)
    for ask in (
        lambda: studio.fit(own, errand, studio.progress(own=True)),
        lambda: studio.save_points(own, errand),
    ):
        with pytest.raises(InputError, match=r"no point"):
            ask()
    click(own)
    errand.cancel()
    with pytest.raises(Left):
        studio.fit(own, errand, studio.progress(own=True))
    with pytest.raises(Left):
        studio.detect(picture("red"), studio.tokens, errand, studio.progress())


def test_a_point_of_ones_own_is_renamed_and_removed(seen):
    own = OwnPoints()
    own.take(picture("red"), seen)
    click(own)
    click(own, 0.4, 0.4)
    for name, words in (("", "give the point a name"), ("POINT 0", "a point 'POINT 0' already")):
        with pytest.raises(InputError, match=words):
            take_step(own.work, Step("rename", own.work.revision, 1, name=name))
    take_step(own.work, Step("rename", own.work.revision, 1, name="Point 1"))  # itself in capitals
    take_step(own.work, Step("drop", own.work.revision, 1))
    assert own.work.names == ("point 0",)
    assert "removed" in board(own.work, 1, own=True)


def test_the_board_of_own_points_has_no_steps_of_annotators(seen):
    own = OwnPoints()
    own.take(picture("red", "<b>"), seen)
    page = board(own.work, 1, own=True)
    assert "ko-own" in page
    assert "&lt;b&gt;" in page
    for step in ("accept", "skip", "absent", "add"):
        assert f'data-step="{step}"' not in page
    click(own)
    page = board(own.work, 2, own=True)
    assert page.count("ko-clicked") == 1  # in the view that was clicked


@pytest.mark.parametrize(
    ("path", "name"),
    [("/tmp/x/cond.png", "picture"), (None, "picture"), ("/tmp/a\nb.png", "a b"), ("/x/my chair.jpeg", "my chair")],
)
def test_an_object_is_called_after_its_file(path, name):
    assert called(path) == name


def test_a_model_of_one_view_has_one_step_and_points_in_the_picture(stable_diffusion, tmp_path):
    tokens = untrained(stable_diffusion, DiscoverConfig(num_tokens=3, num_candidates=3))
    studio = Studio(stable_diffusion, tokens, tmp_path)
    progress, thing = studio.progress(), picture("red")
    detection = studio.detect(thing, tokens, studio.visits.errand("me"), progress)[2]
    assert [(stage.words, stage.state) for stage in progress.read()] == [("Find the keypoints", "done")]
    own = OwnPoints()
    own.take(thing, Seen.of(detection, 0, generated=True))
    click(own)
    assert own.work.message == "point 0: in the picture"
    assert board(own.work, 1, own=True).count("ko-picture") == 1
