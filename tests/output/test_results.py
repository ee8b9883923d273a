"""The file of results: what several processes wrote, with what a killed one left of its last line."""

import json

import pytest

from keyorbit.errors import InputError
from keyorbit.output.results import (
    LEFT_OUT,
    RESULTS,
    Finished,
    begin_results,
    finish_results,
    finished,
    first_result,
    open_part,
    problems,
)
from keyorbit.storage.outputs import MARKER


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(folder, index, *values):
    with open_part(folder, index) as part:
        for one in values:
            part.add(**one)


def found(number, what=""):
    return {"number": number, "values": {"what": what}}


def bad(number):
    return {"number": number, "values": {"problem": f"object {number} is damaged"}}


def test_what_several_processes_wrote_is_one_file_in_the_order_of_the_objects(tmp_path):
    begin_results(tmp_path, {"seed": 0})
    write(tmp_path, 0, found(4), bad(2), found(0))
    write(tmp_path, 1, found(3), found(1), bad(7))
    assert finish_results(tmp_path) == Finished(4, 2)
    assert [row["number"] for row in lines(tmp_path / RESULTS)] == [0, 1, 3, 4]
    assert [row["number"] for row in lines(tmp_path / LEFT_OUT)] == [2, 7]
    assert problems(tmp_path, 1) == ["object 2 is damaged"]
    assert list(finished(tmp_path)) == [1, 1, 0, 1, 1]
    assert first_result(tmp_path)["number"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {RESULTS, LEFT_OUT, MARKER}


def test_what_was_finished_counts_once_and_the_last_time(tmp_path):
    begin_results(tmp_path, {})
    write(tmp_path, 0, found(0, "old"), found(1, "old"), bad(2))
    begin_results(tmp_path, {})  # of a run that was killed
    assert [row["what"] for row in lines(tmp_path / RESULTS)] == ["old", "old"]
    assert not (tmp_path / LEFT_OUT).exists()
    write(tmp_path, 0, found(1, "new"), found(2, "new"), bad(0))
    assert finish_results(tmp_path) == Finished(3, 0)
    assert [row["what"] for row in lines(tmp_path / RESULTS)] == ["old", "new", "new"]


@pytest.mark.parametrize(
    "rest", ['{"number": 1, "what', '{"number": 1}', "\0\0\0\n", '{"number": -1}\n', '{"number": "1"}\n', "[]\n", "\n"]
)
def test_a_line_that_is_not_whole_is_of_an_object_that_is_not_finished(rest, tmp_path):
    begin_results(tmp_path, {})
    write(tmp_path, 3, found(0), found(5))
    with (tmp_path / "results.part-00003.jsonl").open("a") as file:
        file.write(rest)
    assert finish_results(tmp_path) == Finished(2, 0)
    assert [row["number"] for row in lines(tmp_path / RESULTS)] == [0, 5]


def test_results_of_other_settings_stay(tmp_path):
    begin_results(tmp_path / "out", {"seed": 0, "format": ["json"]})
    write(tmp_path / "out", 0, found(0))
    with pytest.raises(InputError, match="holds results of other seed: give the same"):
        begin_results(tmp_path / "out", {"seed": 1, "format": ["json"]})
    assert (tmp_path / "out" / "results.part-00000.jsonl").is_file()
    begin_results(tmp_path / "out", {"seed": 1}, overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MARKER}
    with open_part(tmp_path / "out") as part, pytest.raises(InputError, match="not finite"):
        part.add(0, {"xyz": float("nan")})
