"""Marks and their file: what they may be, and one sentence for what they may not."""

import json

import jaxtyping
import pytest

from keyorbit.errors import InputError
from keyorbit.objects.marks import Mark, check_marks, marks_of, names_of, read_marks, write_marks

SEAT = {"name": "seat", "view": 0, "xy": [0.25, 0.5]}


def read(tmp_path, *entries, **more):
    file = tmp_path / "points.json"
    file.write_text(json.dumps({"marks": list(entries)} | more))
    return read_marks(file)


def test_a_file_is_read_as_it_was_written(tmp_path):
    marks = (
        Mark("front  left foot ", "chair", 0, (0.0, 1.0)),
        Mark("front left foot", "chair", 3, (0.5, 0.25), hidden=True),
        Mark("front left foot", "stool", xyz=(0.0, -0.25, 1e-3)),
        Mark("nose", "chair", xy=(0.5, 0.5)),
    )
    write_marks(tmp_path / "points.json", marks)
    assert read_marks(tmp_path / "points.json") == marks
    assert names_of(marks) == ("front left foot", "nose")
    assert json.loads((tmp_path / "points.json").read_text()) == {
        "format": "keyorbit-marks-1",
        "marks": [
            {"name": "front left foot", "object": "chair", "view": 0, "xy": [0, 1]},
            {"name": "front left foot", "object": "chair", "view": 3, "xy": [0.5, 0.25], "hidden": True},
            {"name": "front left foot", "object": "stool", "xyz": [0, -0.25, 1e-3]},
            {"name": "nose", "object": "chair", "xy": [0.5, 0.5]},
        ],
    }


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "no point is in .*: mark at least one"),
        ([SEAT | {"xy": [1.5, 0.5]}], r"marks\[0\].*'seat' is outside the picture, at \(1.5, 0.5\).*not pixels"),
        ([SEAT | {"xy": [0.5, -1e-9]}], "outside the picture"),
        ([SEAT | {"xy": [0.5]}], r"xy cannot be \[0.5\]; it must be a list of length 2"),
        ([SEAT | {"view": -1}], r"view cannot be -1; it must be a whole number >= 0"),
        ([SEAT | {"xyz": [0, 0, 0]}], "needs either xy, a place in a view, or xyz"),
        ([{"name": "seat"}], "needs either xy, a place in a view, or xyz"),
        ([{"name": "seat", "view": 1, "xyz": [0, 0, 0]}], "has a view and xyz"),
        ([{"name": " ", "xy": [0, 0]}], "name is empty"),
        ([SEAT | {"name": "seat\ud800"}], "has characters that are no text"),
        ([SEAT | {"name": "seat\x1b[2J"}], "has characters that are no text"),
        ([{"xy": [0, 0]}], r"marks\[0\] lacks name"),
        ([SEAT | {"wiev": 0}], "has wiev; there are: name, object, view, xy, xyz, hidden"),
        (
            [SEAT, SEAT | {"xy": [0.1, 0.1]}],
            "two names in .* are equal, 'seat', in view 0: give each point a name of its",
        ),
        ([SEAT, SEAT | {"name": "Seat", "view": 1}], "two names in .* are equal, 'seat' and 'Seat': write both alike"),
        (
            [SEAT, {"name": "seat", "xyz": [0, 0, 0]}],
            "'seat' is both in space and in a view in .*points.json: leave one out",
        ),
    ],
)
def test_what_marks_may_not_be(entries, words, tmp_path):
    with pytest.raises(InputError, match=words) as error:
        read(tmp_path, *entries)
    assert "points.json" in str(error.value)


def test_another_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="format cannot be 'x'"):
        read(tmp_path, SEAT, format="x")
    with pytest.raises(InputError, match="there is no file"):
        read_marks(tmp_path / "none.json")


def test_marks_belong_to_objects_of_their_names():
    one, other = Mark("seat", "b", 0, (0.5, 0.5)), Mark("seat", "a", 0, (0.5, 0.5))
    assert marks_of([one, other], ["a", "b", "c"]) == {0: (other,), 1: (one,)}
    alone = Mark("seat", view=0, xy=(0.5, 0.5))
    assert marks_of([alone], ["a"]) == {0: (other,)}
    with pytest.raises(InputError, match="'b' has marks and is not among the objects: a, c, d and more"):
        marks_of([one], ["a", "c", "d", "e"])
    with pytest.raises(InputError, match="'seat' does not say of which of 2 objects it is: give 'object'"):
        marks_of([alone], ["a", "b"])
    with pytest.raises(InputError, match="2 objects are called 'b'"):
        marks_of([one], ["b", "b"])
    with pytest.raises(InputError, match="two names in the marks of a are equal"):  # once by its name, once without
        marks_of([alone, Mark("seat", "a", 0, (0.1, 0.1))], ["a"])
    with pytest.raises(InputError, match="no object that could have marks"):
        marks_of([one], [])
    check_marks([one, other])


@pytest.mark.parametrize("given", ["points.json", [SEAT], [None]])
def test_what_is_no_mark_is_told(given, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as at a user's
    with pytest.raises(InputError, match=r"is no mark: make one by keyorbit\.Mark; "):
        check_marks(given)
