"""What words name: patterns, a list on stdin, pictures in place of a run."""

import io
import json
from pathlib import Path

import pytest

from keyorbit.cli.inputs import given_paths, run_and_pictures
from keyorbit.diffusion.paths import as_told, shipped_tokens
from keyorbit.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "odd[1].png", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_text("not read here")
    for name in ("run", "data/chair", "photos", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run" / "tokens.safetensors").write_text("not read here")
    (tmp_path / "data" / "chair" / "meta.json").write_text("{}")
    (tmp_path / "photos" / "c.jpg").write_text("not read here")
    monkeypatch.chdir(tmp_path)


def named(words):
    return [str(path) for path in given_paths([Path(word) for word in words])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.png", "photos", "none.png"], ["a.png", "photos", "none.png"]),
        (["?.png", "notes.txt"], ["a.png", "b.png", "notes.txt"]),
        (["*.png"], ["a.png", "b.png", "odd[1].png"]),
        (["odd[1].png"], ["odd[1].png"]),
        (["**/c.jpg"], ["photos/c.jpg"]),
        (["-"], ["a.png", "with space.png"]),
        (["b.png", "-"], ["b.png", "a.png", "with space.png"]),
    ],
)
def test_words_name_files_patterns_and_lists(words, expected, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a.png\r\n\n\nwith space.png\n"))
    assert named(words) == expected


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["*.gif"], "", "nothing matches"),
        (["-"], "\n", "stdin holds no paths"),
        (["-", "a.png", "-"], "a.png\n", "leave one out"),
        (["-"], "a\0b\n", "zeros"),
    ],
)
def test_words_that_name_nothing_are_refused(words, stdin, said, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    with pytest.raises(InputError, match=said):
        named(words)


@pytest.mark.parametrize("word", ["a.png", "none.png", "*.png", "data", "photos"])
def test_pictures_in_place_of_a_run_are_read_with_the_tokens_that_ship(word):
    run, pictures = run_and_pictures(Path(word), [Path("b.png")], False)
    assert run is None
    assert str(pictures[-1]) == "b.png"
    assert len(pictures) >= 2
    assert run_and_pictures(Path(word), [], True)[0] == Path(word)


@pytest.mark.parametrize("word", ["run", "run/tokens.safetensors", "nothing", "empty", "notes.txt"])
def test_every_other_word_is_the_run(word):
    assert run_and_pictures(Path(word), [Path("b.png")], False) == (Path(word), [Path("b.png")])


def test_what_ships_is_told_without_where_it_is_installed():
    assert as_told(shipped_tokens()) == "keyorbit/assets/examples/tokens.safetensors"
    assert as_told(Path("run/tokens.safetensors")) == "run/tokens.safetensors"


def test_objects_are_discovered_on_from_several_places(chairs, model_folder, few_planted, command, monkeypatch):
    """A folder of one object, and a list on stdin; the report finds them again."""
    first, second, _ = sorted(chairs.iterdir())
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{second}\n"))
    few = ["--tokens", 2, "--candidates", 2, "--steps", 2, "--noises", 1, "--config", few_planted]
    assert command("discover", first, "-", "--out", "new", "--model", model_folder, *few) == 0
    assert json.loads(Path("new/run.json").read_text())["data"] == [str(first), str(second)]
    assert command("report", "new", "--objects", 2) == 0
    page = Path("new/report.html").read_text()
    assert first.name in page
    assert second.name in page
