"""Tables are legible on a terminal of 80 characters, and general options stand anywhere."""

import io

import pytest
from rich.console import Console

from keyorbit.cli.cutouts import gathered_lines
from keyorbit.cli.detected import Told, tell
from keyorbit.cli.main import _in_front
from keyorbit.cli.tables import objects_table
from keyorbit.cli.terminal import console
from keyorbit.evaluation.evaluate import Evaluation, ObjectScores


def test_two_results_of_an_object_stand_on_one_line_of_80_characters():
    name = "a_long_name_of_a_folder_of_an_object_00012"
    rows = ObjectScores(name, 16, 0.0123, 0.5), ObjectScores(name, 9, 0.1, None)
    results = {
        label: Evaluation((row,), None, 1.0, None, None, None, None)
        for label, row in zip(("discovered", "untrained"), rows, strict=True)
    }
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(objects_table(results))
    text = console.export_text()
    for whole in ("keypoints", "reprojection, %", "landmarks, %", "16 / 9", "1.2 / 10.0", "50.0 / –", "discovered"):
        assert whole in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("detect run a.png -v", "-v detect run a.png"),
        ("--quiet detect --out x -v", "--quiet -v detect --out x"),
        ("detect run -- -v", "detect run -- -v"),
        ("detect --verbosely", "detect --verbosely"),
        ("", ""),
    ],
)
def test_options_of_all_commands_may_stand_behind_a_command(words, expected):
    assert _in_front(words.split()) == expected.split()


def told(name, advice, share="1%"):
    judgement = (f"unknown ({share})", "#B3261E")
    return Told((name, "–", "–", "out"), "", judgement, advice, (), True, True, None, None, None, None)


def test_what_is_said_of_many_objects_is_said_once():
    said = [("a", "x"), ("b", ""), ("c", "x"), *((f"n{i}", "y") for i in range(1005))]
    assert gathered_lines(said) == ["a, c: x", "n0, n1, n2 and 1,002 more: y"]


def test_the_same_advice_about_many_objects_is_printed_once():
    with console.capture() as printed:
        tell([told("a", "cut it out", "2%"), told("b", "look at it"), told("c", "cut it out"), told("d", "")])
    lines = [line for line in printed.get().splitlines() if ":" in line]
    assert lines == [
        "a: unknown (2%)",
        "b: unknown (1%): look at it",
        "c: unknown (1%)",
        "d: unknown (1%)",
        "a, c: cut it out",
    ]
