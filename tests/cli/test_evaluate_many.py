"""`evaluate` on many objects: kept one by one, gone on with, and what is wrong with one of them."""

import json
import shutil

import pytest

from keyorbit.cli.work import several
from keyorbit.detection.detector import KeypointDetector
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.storage.outputs import MARKER


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
    return shutil.copytree(chairs, tmp_path / "data")


@pytest.fixture
def words(tokens, data):
    return ["evaluate", tokens, data, "--no-baseline", "--json"]


@pytest.fixture
def read(monkeypatch):
    """The names of the objects that are read."""
    names, reading = [], several.read_source
    monkeypatch.setattr(several, "read_source", lambda source, *how: names.append(source.name) or reading(source, *how))
    return names


def scores(path):
    return json.loads(path.read_text())


def test_a_stopped_evaluation_goes_on_and_gives_the_same_figures(words, data, tmp_path, command, read, monkeypatch):
    alone, kept, out = tmp_path / "alone.json", tmp_path / "kept.json", tmp_path / "out"
    more = ["--fit", data, "--moved", data]
    assert command(*words, alone, *more) == 0
    reading = KeypointDetector.read

    def stopped(detector, recording):
        if len(list(out.rglob("*.safetensors"))) == 5:
            raise OSError
        return reading(detector, recording)

    with monkeypatch.context() as patch:
        patch.setattr(KeypointDetector, "read", stopped)
        assert command(*words, kept, *more, "--out", out) == 2
    assert not kept.exists()
    del read[:]
    assert command(*words, kept, *more, "--out", out) == 0
    assert len(read) == 3 + 4  # the first of each part, and the four that were left
    assert kept.read_bytes() == alone.read_bytes() == (out / "scores.json").read_bytes()
    del read[:]
    assert command(*words, kept, *more, "--out", out) == 0
    assert len(read) == 3
    assert command(*words, kept, *more, "--out", out, "--generate") == 2  # other figures
    assert command("evaluate", words[1], data / "chair_1_00000", "--no-baseline", "--out", out) == 2


def test_what_cannot_be_used_is_left_out_and_the_figures_say_so(words, data, tmp_path, command, capsys):
    out, file = tmp_path / "out", tmp_path / "scores.json"
    whole = (data / "chair_1_00001" / "grid.png").read_bytes()
    (data / "chair_1_00001" / "grid.png").write_bytes(b"no picture")
    meta = scores(data / "chair_1_00002" / "meta.json")
    (data / "chair_1_00002" / "meta.json").write_text(json.dumps({"format": meta["format"], "layout": meta["layout"]}))
    assert command(*words, file, "--out", out, "--moved", data) == 2
    said = capsys.readouterr()
    assert "1 of 3 objects" in said.out
    assert f"4 of 6 objects are left out; all are listed in {out / 'left_out.jsonl'}: " in said.err
    assert "chair_1_00002 has no ground truth, and chair_1_00000 has 12 landmarks" in said.err
    told = scores(file)["discovered"]
    assert told["left_out"] == ["chair_1_00001", "chair_1_00002"]
    assert [row["name"] for row in told["objects"]] == ["chair_1_00000"]
    left = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
    assert [(one["part"], one["number"], one["object"]) for one in left] == [
        (part, number, f"chair_1_0000{number}") for part in ("objects", "moved") for number in (1, 2)
    ]
    # The same command tries them again.
    (data / "chair_1_00001" / "grid.png").write_bytes(whole)
    (data / "chair_1_00002" / "meta.json").write_text(json.dumps(meta))
    assert command(*words, file, "--out", out, "--moved", data) == 0
    assert scores(file)["discovered"]["left_out"] == []
    assert not (out / "left_out.jsonl").exists()
    assert {path.name for path in out.iterdir()} == {"objects", "moved", "scores.json", MARKER}
    assert len(list(out.rglob("*.json"))) == 2  # with the marker


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_a_kept_file_that_is_damaged_is_named_with_the_remedy(suffix, words, data, tmp_path, command, capsys):
    out, file = tmp_path / "out", tmp_path / "scores.json"
    (data / "chair_1_00001" / "grid.png").write_bytes(b"no picture")
    assert command(*words, file, "--out", out) == 2
    whole = file.read_bytes()
    (kept,) = (path for path in (out / "objects").glob(f"*.{suffix}") if "00000000" in path.name or suffix == "json")
    (data / "chair_1_00001" / "grid.png").write_bytes(b"no picture at all")
    if suffix == "safetensors":
        kept.write_bytes(b"damaged")
        capsys.readouterr()
        assert command(*words, file, "--out", out) == 2
        assert f"delete {kept}, and the same command measures its object again" in capsys.readouterr().err
        kept.unlink()
    assert command(*words, file, "--out", out) == 2  # it is tried again, and written anew
    assert file.read_bytes() == whole


def test_strict_stops_and_nothing_is_measured_of_nothing(words, data, tmp_path, command, capsys):
    (data / "chair_1_00001" / "grid.png").write_bytes(b"no picture")
    assert command(*words, tmp_path / "scores.json", "--strict") == 2
    assert not (tmp_path / "scores.json").exists()
    for folder in data.iterdir():
        (folder / "grid.png").write_bytes(b"no picture")
    assert command(*words, tmp_path / "scores.json", "--out", tmp_path / "out") == 2
    assert not (tmp_path / "scores.json").exists()
    assert not (tmp_path / "out").exists()
    assert "grid.png" in capsys.readouterr().err


def test_objects_are_given_as_folders_patterns_and_a_list(words, data, tmp_path, command, monkeypatch, capsys):
    file = tmp_path / "scores.json"
    first, second, third = sorted(data.iterdir())
    monkeypatch.setattr("sys.stdin", [f"{third}\n"])
    assert command(*words[:2], first, data / "*1", "-", *words[3:], file) == 0
    assert [row["name"] for row in scores(file)["discovered"]["objects"]] == [
        one.name for one in (first, second, third)
    ]
    assert command(*words[:2], first, second, "--dataset", "taichi") == 2
    assert "takes one folder" in capsys.readouterr().err


def test_processes_share_in_a_folder_only(words, tmp_path, command, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(*words, tmp_path / "scores.json") == 2
    assert "give --out FOLDER" in capsys.readouterr().err
