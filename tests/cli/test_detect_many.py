"""`detect` on several objects: one after the other, stopped and gone on with, and what is wrong with one of them."""

import gc
import json
import shutil
import weakref
from dataclasses import replace

import pytest
import torch
from PIL import Image

from helpers.disk import contents
from keyorbit.cli.main import _terminated
from keyorbit.cli.work import several
from keyorbit.detection.detector import KeypointDetector
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.objects import dataset
from keyorbit.output.write import find_skeleton
from keyorbit.storage.outputs import MARKER

LEFT_OUT = "left_out.jsonl"


@pytest.fixture(scope="module")
def tokens(backend, tmp_path_factory):
    """Tokens that nothing has trained."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)).save(path)
    return path


@pytest.fixture(autouse=True)
def loaded(backend, monkeypatch):
    """The model is loaded once for all tests."""
    monkeypatch.setattr("keyorbit.cli.work.loading.load_backend_of", lambda *_: backend)


@pytest.fixture
def data(chairs, tmp_path):
    """A copy of three objects."""
    folder = shutil.copytree(chairs, tmp_path / "data")
    shutil.move(folder / "chair_1_00002", folder / "last")
    return folder


@pytest.fixture
def words(tokens, data, model_folder):
    """The command without its folder, quick."""
    return ["detect", tokens, data, "--model", model_folder, "--noises", 1, "--per-object", "json", "--out"]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def read(monkeypatch):
    """The names of the objects that are read."""
    names, reading = [], several.read_source
    monkeypatch.setattr(
        several, "read_source", lambda source, *rest: names.append(source.name) or reading(source, *rest)
    )
    return names


def test_a_line_of_the_results_is_what_the_objects_own_file_holds(words, tmp_path, command, capsys):
    assert command(*words, tmp_path / "out") == 0
    assert "last" in capsys.readouterr().out
    found = rows(tmp_path / "out" / "results.jsonl")
    assert [row["number"] for row in found] == [0, 1, 2]
    for row in found:
        own = json.loads((tmp_path / "out" / row["object"] / "keypoints.json").read_text())
        assert row == {"number": row["number"], "path": str(tmp_path / "data" / row["object"]), **own}
    names = {row["object"] for row in found}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.jsonl", MARKER, *names}
    # Without files of their own the lines are the same.
    assert command(*words[:-2], "none", "--out", tmp_path / "none") == 0
    assert {path.name for path in (tmp_path / "none").iterdir()} == {"results.jsonl", MARKER}
    assert rows(tmp_path / "none" / "results.jsonl") == found


def test_the_same_command_goes_on_where_it_was_stopped(words, tmp_path, command, read, monkeypatch):
    whole, out, reading = tmp_path / "whole", tmp_path / "out", KeypointDetector.read
    assert command(*words, whole) == 0

    def stopped(detector, recording):
        if recording.thing.name == "last":
            raise OSError
        return reading(detector, recording)

    with monkeypatch.context() as patch:
        patch.setattr(KeypointDetector, "read", stopped)
        assert command(*words, out) == 2
    assert len(list(out.glob("*/keypoints.json"))) == 2
    with (out / "results.part-00000.jsonl").open("a") as file:  # as a process leaves it that is killed while it writes
        file.write('{"number": 2, "path": "')
    shutil.rmtree(out / "chair_1_00000")  # an object whose folder is gone is not finished
    del read[:]
    assert command(*words, out) == 0
    assert read == ["chair_1_00000", "last"]
    assert contents(out) == contents(whole)
    del read[:]
    assert command(*words, out) == 0
    assert read == []
    assert contents(out) == contents(whole)


def test_a_launchers_signal_is_no_fault_of_an_object(words, tmp_path, command, monkeypatch, capsys):
    monkeypatch.setattr(KeypointDetector, "read", lambda *_: _terminated(15, None))
    assert command(*words, tmp_path / "out") == 2
    assert "stopped from outside" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.part-00000.jsonl").read_text() == ""


def test_results_of_other_objects_or_settings_do_not_mix(words, data, tmp_path, command, capsys):
    out = tmp_path / "out"
    assert command(*words, out) == 0
    before = contents(out)
    assert command(*words, out, "--seed", 1, "--skeleton", "0-1") == 2
    assert "other seed, skeleton:" in capsys.readouterr().err
    shutil.move(data / "last", data / "other")
    assert command(*words, out) == 2
    assert "holds results of other objects: " in capsys.readouterr().err
    assert contents(out) == before
    # One object's keypoints are not put beside them, and theirs go whole.
    alone = [*words[:2], data / "other", *words[3:5], "--noises", 1, "--format", "json", "--out", out]
    assert command(*alone) == 2
    assert contents(out) == before
    (out / "chair_1_00000" / "notes.txt").write_text("mine")
    assert command(*words, out, "--overwrite") == command(*alone, "--overwrite") == 2
    assert "notes.txt" in capsys.readouterr().err
    (out / "chair_1_00000" / "notes.txt").unlink()
    assert command(*words, out, "--overwrite") == 0
    assert {row["object"] for row in rows(out / "results.jsonl")} >= {"other"}
    assert not (out / "last").exists()
    assert command(*alone, "--overwrite") == 0
    assert not any(path.is_dir() for path in out.iterdir())


def test_what_cannot_be_used_is_left_out_and_listed(words, data, tmp_path, command, read, capsys):
    out, bad = tmp_path / "out", data / "chair_1_00001" / "grid.png"
    kept = bad.read_bytes()
    bad.write_bytes(kept[:100])
    Image.open(data / "last" / "grid.png").crop((0, 0, 31, 47)).save(data / "last" / "grid.png")
    assert command(*words, out, "--batch", 3) == 2
    said = capsys.readouterr().err
    assert f"2 of 3 objects are left out; all are listed in {out / LEFT_OUT}: " in said
    assert "left out: " in said
    assert [row["object"] for row in rows(out / "results.jsonl")] == ["chair_1_00000"]
    left = rows(out / LEFT_OUT)
    assert [(row["number"], row["object"]) for row in left] == [(1, "chair_1_00001"), (2, "last")]
    assert str(bad) in left[0]["problem"]
    assert "does not divide" in left[1]["problem"]
    bad.write_bytes(kept)
    shutil.copy(bad, data / "last")
    del read[:]
    assert command(*words, out) == 0
    assert read == ["chair_1_00001", "last"]
    assert [row["number"] for row in rows(out / "results.jsonl")] == [0, 1, 2]
    assert not (out / LEFT_OUT).exists()


def test_strict_stops_at_the_first_that_cannot_be_used(words, data, tmp_path, command, capsys):
    (data / "chair_1_00001" / "grid.png").write_bytes(b"no picture")
    assert command(*words, tmp_path / "out", "--strict") == 2
    assert "what was finished is kept" in capsys.readouterr().err
    assert [row["number"] for row in rows(tmp_path / "out" / "results.jsonl")] == [0]
    for place in data.glob("*/grid.png"):
        place.write_bytes(b"no picture")
    for more in ([], ["--strict"]):
        assert command(*words, tmp_path / "none", *more) == 2
        assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["detect", "evaluate"])
def test_few_objects_are_in_memory_at_a_time(name, words, tokens, data, tmp_path, command, monkeypatch):
    there, most = weakref.WeakSet(), []
    reads = (several, "read_source") if name == "detect" else (dataset, "load_object")
    reading = getattr(*reads)

    def watched(*given):
        gc.collect()
        most.append(len(there))
        thing = reading(*given)
        there.add(thing.views)
        return thing

    monkeypatch.setattr(*reads, watched)
    if name == "detect":
        assert command(*words, tmp_path / "out") == 0
    else:
        assert command("evaluate", tokens, data, "--no-baseline") == 0
        assert len(most) == 4  # the first once more, before there is a model
        most = most[1:]
    assert len(most) == 3
    assert max(most) == 1  # the one before it


def test_a_skeleton_joins_what_keeps_its_distance_over_the_objects(words, tmp_path, command, monkeypatch):
    found, reading = [], KeypointDetector.read

    def kept(detector, recording):
        one = reading(detector, recording)
        found.append(replace(one, keypoints_3d=replace(one.keypoints_3d, score=torch.ones(3))))  # all are seen
        return found[-1]

    monkeypatch.setattr(KeypointDetector, "read", kept)
    assert command(*words, tmp_path / "out", "--skeleton", "auto") == 0
    edges = [list(edge) for edge in find_skeleton(found)]
    assert edges
    assert [row["skeleton"] for row in rows(tmp_path / "out" / "results.jsonl")] == [edges] * 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--per-object", "some"], "--per-object cannot be 'some'"),
        (["--per-object", "none", "--format", "csv"], "--per-object none writes no files of --format csv"),
    ],
)
def test_what_contradicts_itself_is_refused(more, said, words, tmp_path, command, capsys):
    assert command(*words, tmp_path / "out", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_format_that_needs_what_is_not_there_is_refused_at_once(words, tmp_path, command, capsys, monkeypatch):
    monkeypatch.setattr("keyorbit.output.choices.find_spec", lambda name: None)
    assert command(*words[:-3], "--format", "json,rrd", "--out", tmp_path / "out") == 2
    assert "pip install 'keyorbit[rerun]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
