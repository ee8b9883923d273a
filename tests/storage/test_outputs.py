"""Output folders: what keyorbit did not write is never touched, what it wrote is replaced when it is told to."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyorbit.errors import InputError
from keyorbit.storage.files import write_text
from keyorbit.storage.folder_names import beside, folder_names, name_of
from keyorbit.storage.outputs import (
    MARKER,
    OutputKind,
    begin_output,
    check_file,
    check_output,
    check_run,
    replaced_folder,
)

THING, OTHER = OutputKind("thing"), OutputKind("other thing")
RUN = OutputKind("run", ("state", "sheet_*.png", "model/", "logs/*"), checkpoint="state")


def contents(folder):
    """Every file below a folder, as bytes by name; markers apart."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MARKER]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def make(folder, files, kind=THING, overwrite=False):
    with replaced_folder(folder, kind, overwrite) as partial:
        put(partial, files)


def test_a_folder_is_made_where_there_was_none(tmp_path):
    make(tmp_path / "a" / "b", {"one": "1", "deep/two": "2"})
    assert contents(tmp_path) == {"a/b/one": b"1", "a/b/deep/two": b"2"}
    said = json.loads((tmp_path / "a" / "b" / MARKER).read_text())
    assert said == {"format": "keyorbit-output-1", "kind": "thing", "files": {"one": 1, "deep/two": 1}}


@pytest.mark.parametrize("address", ["s3://bucket/x", "file:///tmp/x", "https://host/x?key=secret"])
def test_an_address_is_no_folder_of_this_disk(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for check in (lambda: check_output(Path(address), THING), lambda: check_file(Path(address), "x")):
        with pytest.raises(InputError, match="is an address, and this is written on the disk") as caught:
            check()
        assert "secret" not in str(caught.value)
    with pytest.raises(InputError):
        make(Path(address), {"one": "1"})
    assert not list(tmp_path.iterdir())


def test_what_keyorbit_wrote_is_replaced_whole_when_it_is_told_to(tmp_path):
    make(tmp_path / "x", {"one": "1", "deep/two": "2", "three": "3"})
    with pytest.raises(InputError, match=r"holds a thing already: replace it \(--overwrite\), or give another folder"):
        make(tmp_path / "x", {"one": "new"})
    assert contents(tmp_path / "x") == {"one": b"1", "deep/two": b"2", "three": b"3"}
    make(tmp_path / "x", {"one": "new", "four": "4"}, overwrite=True)
    assert contents(tmp_path / "x") == {"one": b"new", "four": b"4"}
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [MARKER, "four", "one"]
    make(tmp_path / "x", {"five": "5"}, overwrite=True)
    assert contents(tmp_path / "x") == {"five": b"5"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("mine", ["notes.txt", "deep/notes.txt", "model/notes.txt", "x.partial", "one.bak"])
def test_what_somebody_else_put_there_is_never_touched(tmp_path, mine, overwrite):
    for there, kind in (("empty", THING), ("thing", THING), ("run", RUN)):
        folder = tmp_path / there
        if there == "thing":
            make(folder, {"one": "1", "deep/two": "2"})
        if there == "run":
            begin_output(folder, RUN)
            put(folder, {"state": "1"})
        put(folder, {mine: "mine"})
        before = contents(folder)
        with pytest.raises(InputError, match=rf"did not mark as its own.*\({mine}\)"):
            make(folder, {"one": "new"}, kind, overwrite)
        with pytest.raises(InputError, match="nothing there was touched"):
            begin_output(folder, kind, overwrite)
        assert contents(folder) == before


def test_a_file_of_ours_that_was_changed_or_moved_is_not_ours_any_more(tmp_path):
    make(tmp_path / "x", {"one": "1", "two": "2"})
    (tmp_path / "x" / "one").write_text("improved by hand")
    with pytest.raises(InputError, match=r"changed since \(one\)"):
        make(tmp_path / "x", {"one": "new"}, overwrite=True)
    make(tmp_path / "y", {"one": "1"})
    (tmp_path / "y" / "one").rename(tmp_path / "elsewhere")
    (tmp_path / "y" / "one").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"changed since \(one\)"):
        make(tmp_path / "y", {"one": "2"}, overwrite=True)
    assert (tmp_path / "elsewhere").read_text() == "1"


def test_another_kind_of_output_is_not_replaced(tmp_path):
    make(tmp_path / "x", {"one": "1"})
    with pytest.raises(InputError, match="holds a thing; give another folder for the other thing"):
        make(tmp_path / "x", {"one": "2"}, OTHER, overwrite=True)
    assert contents(tmp_path / "x") == {"one": b"1"}


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": "keyorbit-output-1", "kind": "thing"}',
        '{"format": "other", "kind": "thing", "files": {"notes": null}}',
        '{"format": "keyorbit-output-1", "kind": "thing", "files": {"notes": "many"}}',
        '{"format": "keyorbit-output-1", "kind": "thing", "files": {"notes": null, "../secret": null}}',
        '{"format": "keyorbit-output-1", "kind": "thing", "files": {"notes": null, "/etc/passwd": null}}',
    ],
)
def test_a_marker_that_cannot_be_trusted_proves_nothing(tmp_path, said):
    put(tmp_path, {"secret": "mine", f"x/{MARKER}": said, "x/notes": "mine"})
    with pytest.raises(InputError, match=r"\(notes\)"):
        make(tmp_path / "x", {"one": "1"}, overwrite=True)
    assert (tmp_path / "secret").read_text() == (tmp_path / "x" / "notes").read_text() == "mine"


def test_hidden_files_and_the_systems_own_are_in_nobodys_way(tmp_path):
    put(tmp_path, {".gitignore": "*", ".git/config": "mine", "lost+found/a": "", "Thumbs.db": "x"})
    kept = contents(tmp_path)
    make(tmp_path, {"one": "1", "two": "2"})
    make(tmp_path, {"one": "new"}, overwrite=True)
    assert contents(tmp_path) == kept | {"one": b"new"}
    begin_output(tmp_path / "run", RUN)
    put(tmp_path / "run", {"state": "1", ".note": "mine"})
    begin_output(tmp_path / "run", RUN, overwrite=True)
    assert contents(tmp_path / "run") == {".note": b"mine"}


def test_a_folder_that_is_there_is_filled_from_within(tmp_path, monkeypatch):
    """It may be a disk of its own, from which and to which nothing can be renamed."""
    place, rename = tmp_path / "volume", os.rename

    def on_one_disk(source, target, *args, move=os.replace, **options):
        if Path(source).is_relative_to(place) != Path(target).is_relative_to(place):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return move(source, target, *args, **options)

    monkeypatch.setattr(os, "replace", on_one_disk)
    monkeypatch.setattr(os, "rename", lambda *args, **options: on_one_disk(*args, move=rename, **options))
    place.mkdir()
    for overwrite in (False, True):
        make(place, {"one": "1", "deep/two": "2"}, overwrite=overwrite)
        assert contents(place) == {"one": b"1", "deep/two": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["volume"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make(tmp_path / "link", {"one": "1"})
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"one": b"1"}
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere" / "new")
    make(tmp_path / "dangling", {"two": "2"})
    assert (tmp_path / "dangling").is_symlink()
    assert contents(tmp_path / "elsewhere" / "new") == {"two": b"2"}
    (tmp_path / "target").write_text("old")
    (tmp_path / "alias").symlink_to(tmp_path / "target")
    write_text(tmp_path / "alias", "new")
    assert (tmp_path / "alias").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_links_that_lead_round_in_a_circle_are_told(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for folder in (tmp_path / "a", tmp_path / "a" / "below"):
        with pytest.raises(InputError, match="cannot be read"):
            make(folder, {"one": "1"})
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "a", "text")


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path, "a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_nothing_is_left_or_lost_whatever_fails(tmp_path, monkeypatch):
    def half(folder, overwrite):
        with replaced_folder(folder, THING, overwrite) as partial:
            put(partial, {"one": "half"})
            raise KeyError("oh")

    def fail(folder, overwrite=False):
        with pytest.raises(KeyError, match="oh"):
            half(folder, overwrite)

    fail(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file"):
            make(bad, {"one": "1"})
    assert contents(tmp_path) == {"file": b"mine"}
    make(tmp_path / "x", {"one": "1", "two": "2"})
    before = contents(tmp_path)
    fail(tmp_path / "x", overwrite=True)
    assert contents(tmp_path) == before

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        with pytest.raises(InputError, match="No space left"):
            make(tmp_path / "y", {"one": "1"})
    assert contents(tmp_path) == before


def test_what_appears_while_the_work_goes_on_is_not_touched(tmp_path):
    def meanwhile():
        with replaced_folder(tmp_path / "x", THING) as partial:
            put(partial, {"notes": "ours"})
            put(tmp_path / "x", {"notes": "mine"})

    with pytest.raises(InputError, match="notes"):
        meanwhile()
    assert contents(tmp_path) == {"x/notes": b"mine"}


@pytest.mark.parametrize("moved", range(5))
def test_a_command_killed_while_it_moves_files_in_can_be_repeated(tmp_path, monkeypatch, moved):
    """Killed at any rename: every file is the old or the new one, and all of them are still known to be ours."""
    make(tmp_path / "x", {"one": "1", "two": "2", "three": "3"})
    replace, count = Path.replace, 0

    def killed(self, target):
        nonlocal count
        count += 1
        if count > moved:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a kill leaves what is half made
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "x", {"one": "new", "four": "4"}, overwrite=True)
    left = contents(tmp_path / "x")
    assert left["one"] in (b"1", b"new")
    assert "four" in left or left["two"] == b"2"
    make(tmp_path / "x", {"one": "new", "four": "4"}, overwrite=True)
    assert contents(tmp_path) == {"x/one": b"new", "x/four": b"4"}


def test_a_killed_commands_remains_go_with_the_next_and_no_other_folder_does(tmp_path):
    partial = beside(tmp_path / "x")
    partial.mkdir()
    put(partial, {"thesis": "mine"})
    with pytest.raises(InputError, match="somebody else"):
        make(tmp_path / "x", {"one": "1"})
    assert contents(partial) == {"thesis": b"mine"}
    shutil.rmtree(partial)
    with replaced_folder(tmp_path / "y", THING) as left:
        put(left, {"half": "1"})
        shutil.copytree(left, partial)
    make(tmp_path / "x", {"one": "1"})
    assert contents(tmp_path) == {"x/one": b"1", "y/half": b"1"}


def test_a_run_gathers_its_files_and_is_replaced_with_them(tmp_path):
    begin_output(tmp_path, RUN)
    put(tmp_path, {"state": "1", "sheet_1.png": "2", "logs/deep/events": "3"})
    make(tmp_path / "model", {"weights": "4"}, OTHER)
    begin_output(tmp_path, RUN, resume=True)
    assert (tmp_path / "state").read_text() == "1"
    check_output(tmp_path, RUN, overwrite=True)
    with pytest.raises(InputError, match=r"go on with it \(--resume\), replace it \(--overwrite\)"):
        check_output(tmp_path, RUN)
    put(tmp_path, {"model/notes": "mine"})
    with pytest.raises(InputError, match=r"\(model/notes\)"):
        begin_output(tmp_path, RUN, overwrite=True)
    (tmp_path / "model" / "notes").unlink()
    begin_output(tmp_path, RUN, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


def test_a_run_that_was_checked_before_begins_beside_what_came_meanwhile(tmp_path):
    begin_output(tmp_path, RUN)
    put(tmp_path, {"state": "1", "state_of_mine": "mine", "model/notes": "mine"})
    begin_output(tmp_path, RUN, overwrite=True, checked=True)
    assert contents(tmp_path) == {"state_of_mine": b"mine", "model/notes": b"mine"}


def test_a_run_without_a_checkpoint_begins_anew(tmp_path):
    begin_output(tmp_path, RUN)
    put(tmp_path, {"sheet_1.png": "of a run that was being replaced", ".note": "mine"})
    begin_output(tmp_path, RUN, resume=True)
    assert contents(tmp_path) == {".note": b"mine"}


def test_what_lies_behind_a_link_is_not_a_runs_own(tmp_path):
    begin_output(tmp_path / "run", RUN)
    put(tmp_path / "thesis", {"a.tex": "mine"})
    (tmp_path / "run" / "logs").symlink_to(tmp_path / "thesis")
    with pytest.raises(InputError, match=r"\(logs\)"):
        begin_output(tmp_path / "run", RUN, overwrite=True)
    assert contents(tmp_path / "thesis") == {"a.tex": b"mine"}


def test_long_names_that_begin_alike_do_not_meet(tmp_path):
    assert beside(tmp_path / ("x" * 60 + "a")) != beside(tmp_path / ("x" * 60 + "b"))
    assert len(beside(tmp_path / ("椅" * 80)).name.encode()) < 255


def test_a_folder_in_a_files_place_is_seen_before_anything_moves(tmp_path):
    (tmp_path / "x" / "two").mkdir(parents=True)
    with pytest.raises(InputError, match="two is a folder there"):
        make(tmp_path / "x", {"one": "1", "two": "2"})
    assert contents(tmp_path) == {}


def test_a_name_with_a_star_is_no_pattern(tmp_path):
    make(tmp_path, {"a*": "1"})
    put(tmp_path, {"ab": "mine"})
    with pytest.raises(InputError, match=r"\(ab\)"):
        make(tmp_path, {"one": "1"}, overwrite=True)


def test_a_place_where_nobody_may_write_is_told_at_the_door(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match="you may not write in"):
        check_output(tmp_path / "a" / "b", THING)


def test_a_run_goes_on_beside_what_others_put_there(tmp_path):
    check_run(tmp_path / "new", RUN, resume=True)
    put(tmp_path / "old", {"state": "of a version without markers", "notes": "mine"})
    check_run(tmp_path / "old", RUN, resume=True)
    begin_output(tmp_path / "old", RUN, resume=True)
    assert contents(tmp_path / "old") == {"state": b"of a version without markers", "notes": b"mine"}
    (tmp_path / "old" / "state").unlink()
    check_run(tmp_path / "old", RUN, resume=True)
    put(tmp_path / "foreign", {"notes": "mine"})
    make(tmp_path / "thing", {"one": "1"})
    for name, words in (("foreign", "notes"), ("thing", "holds a thing")):
        with pytest.raises(InputError, match=words):
            check_run(tmp_path / name, RUN, resume=True)


def test_a_single_file_is_replaced_if_it_is_of_the_kind(tmp_path):
    path = tmp_path / "page.html"
    for text, fine in (("", True), ("<html keyorbit>", True), ("my page", False), (" " * 5000 + "keyorbit", False)):
        path.write_text(text)
        if fine:
            check_file(path, "keyorbit")
        else:
            with pytest.raises(InputError, match="not touched"):
                check_file(path, "keyorbit")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not what this command writes"):
        check_file(path, "keyorbit")
    with pytest.raises(InputError, match="is a folder"):
        check_file(tmp_path, "keyorbit")
    check_file(tmp_path / "none", "keyorbit")


def test_names_become_folders_of_their_own_on_any_system():
    assert folder_names(["a", "a", "a_2", "b"]) == ["a", "a_3", "a_2", "b"]
    assert folder_names(["Chair", "chair", "CHAIR"]) == ["Chair", "chair_2", "CHAIR_3"]
    assert folder_names(["Straße", "STRASSE"]) == ["Straße", "STRASSE_2"]
    assert folder_names(["é", "e\u0301", "É"]) == ["é", "e\u0301_2", "É_3"]
    assert folder_names(["a:b", "a?b", "con", "Con.x", "nul", "end. ", ".hidden", "", "..", "x/y"]) == [
        "a_b", "a_b_2", "_con", "_Con.x", "_nul", "end", "_.hidden", "_", "__2", "x_y",
    ]  # fmt: skip
    assert folder_names(["photo of 2024.05.01", "椅子", "a b"]) == ["photo of 2024.05.01", "椅子", "a b"]
    assert folder_names(["bad \udc80 byte"]) == ["bad _ byte"]
    assert (name_of(Path("a/b/..")), name_of(Path())) == ("a", Path.cwd().name)
    long = folder_names(["x" * 300, "x" * 301, "椅" * 100])
    assert len(set(long)) == 3
    assert max(len(name.encode()) for name in long) < 220


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("aAbé\u0301_2:. "), max_size=4), max_size=12))
def test_names_never_meet_and_stay_what_they_are_where_they_can(names):
    found = folder_names(names)
    assert len({name.casefold() for name in found}) == len(names)
    assert folder_names(found) == found
    for name in found:
        assert name == name.strip(". ")[: len(name)] or name.startswith((" ", "_"))
        assert not set(name) & set(':/\\?*"<>|')
