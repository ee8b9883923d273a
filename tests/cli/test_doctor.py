"""doctor and demo: what is missing or broken is told, and the main job is done in its order."""

import json
import shutil

import pytest

from keyorbit.cli import checkup as looked
from keyorbit.cli import demo
from keyorbit.cli.checkup import Extra, Package, _requirements


def test_requirements_become_packages_and_extras():
    lines = [
        "torch>=2.4",
        "no-such-thing[fast]>=3,<4",
        "torch>=999; extra == 'far'",
        "not-there-either; extra == 'far'",
        "ruff; extra == 'dev'",
    ]
    packages, extras = _requirements(lines)
    assert [(one.name, one.wanted) for one in packages] == [("torch", ">=2.4"), ("no-such-thing", ">=3,<4")]
    assert [one.words for one in packages] == ["", "no-such-thing is missing"]
    assert extras == (Extra("far", ("not-there-either",), "pip install 'keyorbit[far]'"),)
    assert Package("torch", ">=99", "2.4.0").words == "torch 2.4.0 is too old"


def test_the_self_test_passes_on_what_ships():
    trial = looked._trial()
    assert trial.passed, trial.words


def test_what_does_not_work_is_told_with_status_1(command, capsys, monkeypatch):
    monkeypatch.setattr(looked, "_tried", lambda: "on cpu keypoints are not finite")
    monkeypatch.setattr(looked, "requires", lambda name: ["no-such-thing>=3", "torch>=2.4"])
    assert command("doctor", "--json", "-") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["trial"]["passed"] is False
    assert told["problems"] == [
        "no-such-thing is missing: pip install -U 'no-such-thing>=3'",
        "the self-test failed: on cpu keypoints are not finite",
    ]
    monkeypatch.undo()
    assert command("doctor", "--no-test") == 0
    said = capsys.readouterr().out
    for words in ("keyorbit ", "Python ", "torch ", "device cpu", "GiB free", "extra synthetic: "):
        assert words in said
    assert "self-test" not in said


def test_libraries_that_cannot_be_used_are_a_problem(command, capsys, monkeypatch):
    def broken():
        raise OSError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(looked, "known_devices", broken)
    assert command("doctor") == 1
    assert "the libraries cannot be used: libcudart.so.12" in capsys.readouterr().err


@pytest.mark.parametrize("can_render", [True, False])
def test_the_demo_does_the_main_job_in_its_order(can_render, command, capsys, monkeypatch, tmp_path, chairs):
    """Each command with what the one before it wrote; without the ray caster on chairs that ship."""
    done = []

    def made(out, category, count, *more, **options):
        done.append(("make", out.name, count))
        shutil.copytree(chairs, out)

    def step(name):
        return lambda *words, **options: done.append((name, *(str(word) for word in words)))

    monkeypatch.setattr(demo, "find_spec", lambda name: object() if can_render else None)
    monkeypatch.setattr("keyorbit.cli.dataset.dataset_make", made)
    for name in ("discover", "detect", "evaluate", "report"):
        monkeypatch.setattr(f"keyorbit.cli.{name}.{name}_command", step(name))
    assert command("demo", "--quick", "--out", tmp_path / "out") == 0
    making = [("make", "train", 12), ("make", "test", 6)] if can_render else []
    assert done[: len(making)] == making
    run, test = str(tmp_path / "out" / "run"), tmp_path / "out" / "test"
    last = sorted(test.iterdir())[-1]
    assert done[len(making) :] == [
        ("discover", run, f"[{(tmp_path / 'out' / 'train')!r}]"),
        ("detect", run, f"[{last!r}]", str(tmp_path / "out" / "given_views")),
        ("detect", run, f"[{(last / 'cond.png')!r}]", str(tmp_path / "out" / "one_picture")),
        ("evaluate", run, str([test])),
        ("report", run, str([test])),
    ]
    said = capsys.readouterr().out
    assert "takes about a minute" in said
    assert said.index("1/5 Objects") < said.index("5/5 All of it on one page")
    if not can_render:
        assert len([path for path in (tmp_path / "out" / "train").iterdir() if path.is_dir()]) == 6
        assert len([path for path in test.iterdir() if path.is_dir()]) == 2
