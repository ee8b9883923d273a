"""The annotators' loop without a model: marks, confirmations, steps back, and the file that holds them all."""

import itertools
import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from helpers.hostile import WRONG
from helpers.worlds import CAMERAS, ball, detections, make_world
from keyorbit.app.annotating import Annotating
from keyorbit.app.board import board, take_step
from keyorbit.app.calls import Step
from keyorbit.app.exporting import write_export
from keyorbit.app.importing import with_imported
from keyorbit.app.marked import check_objects, with_names
from keyorbit.app.seen import Seen
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.marks import Absent, Annotations, Mark, Review, read_annotations, read_marks
from keyorbit.objects.picture_marks import marks_on
from keyorbit.objects.points.read import read_points
from keyorbit.values import from_values

NAMES = [f"keypoint_0{k}" for k in range(5)]


@pytest.fixture(scope="module")
def world():
    """Three objects whose keypoints are found where they are; thing1 is the least certain."""
    things = make_world(3)
    found = [Seen.of(detection, 0) for detection in detections(things)]
    masks = ball()
    return things, [
        replace(seen, certainty=sure, masks=masks) for seen, sure in zip(found, (0.5, 0.2, 0.9), strict=True)
    ]


@pytest.fixture
def work(world, tmp_path):
    return begun(world[1], tmp_path / "marks.json")


def begun(seen, file, moved=lambda: None):
    """As the command begins, with what the file holds."""
    before = read_annotations(file) if file.exists() else Annotations()
    made = Annotating([one.name for one in seen], NAMES, file, before, moved)
    for one in seen:
        made.put(one)
    made.begin()
    return made


def xyz(work, name="keypoint_00"):
    point = next(point for point in work.points(work.state.current) if point.name == name)
    return torch.tensor(point.xyz)


def target(shift=(0.05, -0.04, 0.03)):
    """A point in space, and where every view shows it."""
    point = torch.tensor([shift])
    return point[0], [tuple(xy) for xy in CAMERAS.project(point)[:, 0].tolist()]


def test_the_least_certain_comes_first_and_skipped_ones_last(work):
    assert work.state.current == "thing1"
    work.skip(0)
    assert work.state.current == "thing0"
    work.accept(1)
    assert (work.state.current, work.queue()) == ("thing2", ["thing2", "thing1"])
    work.accept(2)
    assert work.state.current == "thing1"
    work.skip(3)  # there is no other
    assert work.state.current == "thing1"
    work.accept(4)
    assert work.message == "thing1: confirmed; all objects that were read are confirmed"
    assert list(work.reviewed) == ["thing0", "thing2", "thing1"]


def test_one_click_is_lifted_and_two_are_triangulated(work):
    point, seen = target()
    before = xyz(work)
    work.place(0, "keypoint_00", 0, seen[0])
    assert "lifted" in work.message
    projected = CAMERAS.project(xyz(work)[None])[0, 0]
    torch.testing.assert_close(projected, torch.tensor(seen[0]), atol=1e-3, rtol=0)
    assert (xyz(work) - before).norm() > 0.01
    work.place(1, "keypoint_00", 2, seen[2])
    assert "triangulated" in work.message
    torch.testing.assert_close(xyz(work), point, atol=1e-3, rtol=0)
    assert [(mark.view, mark.object) for mark in work.marks] == [(0, "thing1"), (2, "thing1")]
    # A click that does not fit counts alone.
    work.place(2, "keypoint_00", 3, (0.3, 0.3))
    assert "were dropped" in work.message
    assert [mark.view for mark in work.marks] == [3]
    # The same view again replaces its click.
    work.place(3, "keypoint_00", 3, (0.4, 0.3))
    assert [mark.xy for mark in work.marks] == [(0.4, 0.3)]


def test_a_click_beside_the_object_changes_nothing(work, tmp_path):
    with pytest.raises(InputError, match="beside the object"):
        work.place(0, "keypoint_00", 0, (0.0, 0.0))
    assert (work.revision, work.marks) == (0, ())
    assert not (tmp_path / "marks.json").exists()


def test_every_step_is_in_the_file_at_once_and_can_be_taken_back(work, world, tmp_path):
    file = tmp_path / "marks.json"
    steps = [
        lambda r: work.place(r, "keypoint_00", 0, target()[1][0]),
        lambda r: work.absent(r, "keypoint_01"),
        lambda r: work.add(r, "  left   ear "),
        lambda r: work.place(r, "LEFT ear", 1, target()[1][1]),
        lambda r: work.accept(r),
        lambda r: work.show(r, "thing1"),
        lambda r: work.drop(r, "keypoint_00"),
    ]
    states = [work.state]
    for number, step in enumerate(steps):
        step(number)
        states.append(work.state)
        if file.exists():
            assert read_annotations(file) == work.state.annotations
    assert work.names == (*NAMES, "left ear")
    assert [mark.name for mark in read_marks(file)] == ["left ear"]
    assert read_annotations(file).absent == (Absent("thing1", "keypoint_01"),)
    again = begun(world[1], file)
    assert again.names == work.names
    assert [p.xyz for p in again.points("thing1")] == [p.xyz for p in work.points("thing1")]
    for state in reversed(states[:-1]):
        work.undo(work.revision)
        assert work.state == state
        assert read_annotations(file) == state.annotations
    with pytest.raises(InputError, match="nothing to undo"):
        work.undo(work.revision)


def test_what_was_confirmed_stays_when_tokens_change(work, world):
    before = [point.xyz for point in work.points("thing1")]
    work.accept(0)
    moved = replace(world[1][1], xyz=world[1][1].xyz + 0.1)
    work.put(moved)
    assert [point.xyz for point in work.points("thing1")] == [pytest.approx(place, abs=1e-6) for place in before]
    work.show(1, "thing1")
    work.put(replace(moved, version=9))
    assert work.seen("thing1").version == 0  # not under the annotator's hands
    # A correction of a confirmed object is in its confirmation.
    point, seen = target()
    work.place(2, "keypoint_00", 0, seen[0])
    work.place(3, "keypoint_00", 2, seen[2])
    kept = {mark.name: mark.xyz for mark in work.reviewed["thing1"].points}
    assert kept["keypoint_00"] == pytest.approx(point.tolist(), abs=1e-3)
    work.absent(4, "keypoint_00")
    assert "keypoint_00" not in {mark.name for mark in work.reviewed["thing1"].points}
    work.drop(5, "keypoint_00")
    assert xyz(work).tolist() == pytest.approx(moved.xyz[0].tolist(), abs=1e-5)


def test_a_page_of_another_state_is_told_to_look_again(work):
    work.skip(0)
    for step in (work.accept, work.skip, work.undo):
        with pytest.raises(InputError, match="another window"):
            step(0)
    assert len(work.reviewed) == 0


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step("place", 0, 0, 0), "needs x and y"),
        (Step("place", 0, 9, 0, 0.5, 0.5), "choose a point first: there are points 0 to 4"),
        (Step("drop", 0), "choose a point first"),
        (Step("place", 0, 0, 6, 0.5, 0.5), "views 0 to 5"),
        (Step("place", 0, 0, None, 0.5, 0.5), "input picture, whose camera is not known"),
        (Step("add", 0, name=" "), "1 to 200 characters"),
        (Step("add", 0, name="KEYPOINT_00"), "a point 'KEYPOINT_00' already"),
        (Step("show", 0, name="x"), "no object 'x'"),
        (Step("undo", 0), "nothing to undo"),
    ],
)
def test_a_wrong_step_is_one_sentence(work, step, words):
    with pytest.raises(InputError, match=words) as caught:
        take_step(work, step)
    assert "\n" not in str(caught.value)
    assert work.revision == 0


def said(call):
    """The sentence of an error; empty for none."""
    try:
        call()
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("field", [item.name for item in fields(Step)])
def test_hostile_steps_are_one_sentence_or_taken(world, tmp_path, field):
    for i, (wrong, kind) in enumerate(itertools.product(WRONG, ("place", "add", "show", "drop"))):
        work = begun(world[1], tmp_path / f"{i}.json")
        values = {"kind": kind, "revision": 0, "point": 0, "view": 0, "x": 0.5, "y": 0.5, "name": "a", field: wrong}
        assert "\n" not in said(lambda: take_step(work, from_values(Step, values, "step")))  # noqa: B023


def test_a_disk_that_refuses_leaves_everything_as_it_was(work, tmp_path):
    (tmp_path / "marks.json").mkdir()
    (tmp_path / "marks.json" / "x").touch()
    with pytest.raises(InputError, match="cannot write"):
        work.absent(0, "keypoint_00")
    assert (work.revision, work.state.annotations) == (0, Annotations())


@pytest.mark.parametrize(
    ("objects", "annotations", "words"),
    [
        (["a", "a"], Annotations(), "two objects are called 'a'"),
        (["a"], Annotations((Mark("x", "b", 0, (0.5, 0.5)),)), "'b', which is not among the objects"),
        (["a"], Annotations(reviewed=(Review("b", ()),)), "'b', which is not among the objects"),
    ],
)
def test_annotations_of_other_objects_are_refused(objects, annotations, words, tmp_path):
    with pytest.raises(InputError, match=words):
        check_objects(objects, annotations, tmp_path / "m.json")


def test_marks_without_an_object_are_of_the_only_one():
    alone = Annotations((Mark("x", "", 0, (0.5, 0.5)),))
    assert with_names(alone, ["a"]).marks[0].object == "a"
    assert with_names(alone, ["a", "b"]) == alone


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("field", ["marks", "reviewed", "absent", "format"])
def test_a_damaged_file_is_one_sentence(field, wrong, tmp_path):
    file = tmp_path / "marks.json"
    file.write_text(json.dumps({"format": "keyorbit-marks-1", "marks": [], field: wrong}), encoding="utf-8")
    sentence = said(lambda: read_annotations(file))
    assert sentence == "" or str(file) in sentence
    assert "\n" not in sentence


def test_exports_have_what_a_person_said_and_come_back(work, world, tmp_path):
    things, _ = world
    with pytest.raises(InputError, match="nothing to export yet"):
        write_export(work, tmp_path / "out")
    point, seen = target()
    work.place(0, "keypoint_00", 0, seen[0])
    work.place(1, "keypoint_00", 2, seen[2])
    work.skip(2)
    work.absent(3, "keypoint_03")
    work.accept(4)
    assert write_export(work, tmp_path / "out") == 2
    for file in ("cvat.xml", "coco.json", "label_studio.json"):
        points = read_points(tmp_path / "out" / file)
        names = {(p.picture.rpartition("/")[2], p.name) for p in points}
        assert {name for picture, name in names if picture.startswith("thing1")} == {"keypoint_00"}
        assert {n for p, n in names if p.startswith("thing0")} == set(NAMES) - {"keypoint_03"}
        marks = marks_on(points, things, Layout(3, 2))
        done = with_imported(work, marks)
        assert (done.objects, done.points, done.dropped) == (2, 5, 0)
        placed = {p.name: p.xyz for p in work.seen("thing1").place([m for m in marks if m.object == "thing1"])}
        np.testing.assert_allclose(placed["keypoint_00"], point, atol=0.002)
    assert (tmp_path / "out" / "images" / "thing0_view_0.png").is_file()
    with pytest.raises(InputError, match="already: replace it"):
        write_export(work, tmp_path / "out")
    assert write_export(work, tmp_path / "out", overwrite=True, everything=True) == 3
    tasks = json.loads((tmp_path / "out" / "label_studio.json").read_text())
    assert sum("annotations" in task for task in tasks) == 6  # of the one that was confirmed


def test_imported_places_that_do_not_fit_are_left_out(work):
    _, seen = target()
    marks = [Mark("KEYPOINT_00", "thing1", view, xy) for view, xy in enumerate(seen)]
    marks[4] = replace(marks[4], xy=(0.3, 0.3))
    done = with_imported(work, [*marks, Mark("keypoint_00", "thing1", None, (0.5, 0.5))])  # whose camera is not known
    assert (done.points, done.dropped) == (1, 2)
    assert {(mark.name, mark.view) for mark in done.annotations.marks} == {("keypoint_00", v) for v in (0, 1, 2, 3, 5)}
    with pytest.raises(InputError, match="beside the object"):
        with_imported(work, [Mark("new", "thing1", 0, (0.01, 0.01))])


def test_the_board_shows_marks_and_wrong_steps(work):
    work.place(0, "keypoint_00", 0, target()[1][0])
    page = board(work, 3, "<b>no</b>")
    assert 'data-revision="1" data-answer="3"' in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert page.count('class="ko-mark') == 6 * 5
    assert page.count("ko-set") == 6
