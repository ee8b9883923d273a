"""Addresses as paths write them, and files at addresses."""

from pathlib import Path

import pytest

from helpers.shards import in_memory
from keyorbit.errors import InputError
from keyorbit.storage.addresses import address_of, is_remote, plain, shown
from keyorbit.storage.places import (
    file_system,
    files_in,
    is_there,
    matching,
    opened,
    reaching,
    read_if_there,
    read_range,
    removed,
    whole_anywhere,
    without_braces,
)

fsspec = pytest.importorskip("fsspec")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://bucket/a/x.tar", "s3://bucket/a/x.tar"),
        ("S3://bucket/x.tar", "s3://bucket/x.tar"),
        ("hf://datasets/owner/name@main/x.tar", "hf://datasets/owner/name@main/x.tar"),
        ("memory://a/b", "memory://a/b"),
        ("file:///tmp/x.tar", "file:///tmp/x.tar"),
        ("https://host/a.tar?sig=x", "https://host/a.tar?sig=x"),
    ],
)
def test_a_path_is_the_address_again(text, address):
    assert is_remote(Path(text))
    assert address_of(Path(text)) == address
    assert address_of(Path(str(Path(text)))) == address


@pytest.mark.parametrize("text", ["a.tar", "/data/x.tar", "./a:b.tar", "C:/x.tar", "a:b/c", "-", "x-{0..3}.tar"])
def test_other_paths_are_none(text):
    assert not is_remote(Path(text))
    assert address_of(Path(text)) == shown(Path(text)) == str(Path(text))


def test_neither_signatures_nor_passwords_are_shown():
    path = Path("https://me:secret@host/a/x.tar?X-Signature=secret")
    assert shown(path) == "https://host/a/x.tar"
    assert plain(path).name == "x.tar"
    # A bucket's file may have such letters in its name.
    assert shown(Path("s3://bucket/a@b/x?.tar")) == "s3://bucket/a@b/x?.tar"
    with pytest.raises(InputError) as caught, reaching(path):
        raise OSError("https://me:secret@host/a/x.tar?X-Signature=secret is not there")
    assert "secret" not in str(caught.value)


def test_braces_stand_for_numbers_and_words():
    found = [str(path) for path in without_braces(Path("a/x-{008..011}.{tar,idx}"))]
    assert found == [f"a/x-{n:03d}.{kind}" for n in range(8, 12) for kind in ("tar", "idx")]
    assert without_braces(Path("s3://b/{2..1}.tar")) == [Path("s3://b/2.tar"), Path("s3://b/1.tar")]
    assert without_braces(Path("a{b}.tar")) == [Path("a{b}.tar")]
    for text in ("{0..999999999}", "{1..1000}{1..1000}{1..1000}", "{0..99999999999999999999999999}"):
        with pytest.raises(InputError, match="stands for"):
            without_braces(Path(text))


def test_files_are_read_written_and_found_in_memory_as_on_the_disk(tmp_path):
    for folder in (tmp_path / "new", Path("memory://places/new")):
        with whole_anywhere(folder / "a.tar") as partial:
            partial.write_bytes(b"0123456789")
        with pytest.raises(ZeroDivisionError), whole_anywhere(folder / "b.tar") as partial:
            partial.write_bytes(bytes(1 // (len("half of it") - 10)))
        assert is_there(folder / "a.tar")
        assert not is_there(folder / "b.tar")
        assert read_range(folder / "a.tar") == b"0123456789"
        assert read_range(folder / "a.tar", 2, 5) == b"234"
        assert read_range(folder / "a.tar", 8, 50) == b"89"
        assert read_if_there([folder / "a.tar", folder / "b.tar"]) == [b"0123456789", None]
        assert read_if_there([folder / "b.tar"]) == [None]
        assert files_in(folder, ["*.tar"]) == [folder / "a.tar"]
        with opened(folder / "a.tar") as file:
            file.seek(3)
            assert file.read(2) == b"34"
        removed(folder / "a.tar")
        removed(folder / "a.tar")
        assert not is_there(folder / "a.tar")
        with pytest.raises(InputError, match=r"there is no file or folder at .*a\.tar"):
            read_range(folder / "a.tar")


def test_a_pattern_finds_what_is_there(tmp_path):
    (tmp_path / "b.tar").write_bytes(b"b")
    (tmp_path / "a.tar").write_bytes(b"a")
    (tmp_path / ".hidden.tar").write_bytes(b"a")
    folder = in_memory("patterns", *tmp_path.iterdir())
    assert matching(folder / "*.tar") == [folder / "a.tar", folder / "b.tar"]
    assert matching(Path(f"file://{tmp_path}/[a]*.tar")) == [Path(f"file://{tmp_path}/a.tar")]
    with pytest.raises(InputError, match=r"nothing matches memory://patterns/x\*"):
        matching(folder / "x*")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nothing://x/y.tar", "Protocol not known"),
        ("memory://nowhere/y.tar", "there is no file"),
    ],
)
def test_what_cannot_be_reached_is_one_sentence(address, words):
    with pytest.raises(InputError, match=words) as caught:
        read_range(Path(address))
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_library_that_is_missing_is_named(monkeypatch):
    for scheme, package in (("s3", "s3fs"), ("gs", "gcsfs"), ("https", "keyorbit[data]")):
        with (
            pytest.raises(InputError, match="without a library: pip install") as caught,
            reaching(Path(f"{scheme}://b/x")),
        ):
            raise ImportError("Install it")
        assert package in str(caught.value)
    for error, words in (
        (PermissionError("Forbidden"), "access to s3://b/x is refused"),
        (RuntimeError("NoCredentials\nsecond line"), "cannot be reached: RuntimeError: NoCredentials; check"),
    ):
        with pytest.raises(InputError, match=words), reaching(Path("s3://b/x")):
            raise error


def test_fsspec_knows_the_address():
    system, inside = file_system(Path("memory://a/b"))
    assert (type(system).__name__, inside) == ("MemoryFileSystem", "/a/b")


def test_a_server_that_gives_whole_files_only_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.tar").write_bytes(b"0123456789")
    folder = in_memory("whole", tmp_path / "x.tar")
    system, _ = file_system(folder)
    reading = type(system).cat_file
    monkeypatch.setattr(type(system), "cat_file", lambda self, path, start=None, end=None: reading(self, path))
    with pytest.raises(InputError, match=r"the server of memory://whole/x\.tar gives no parts of files"):
        read_range(folder / "x.tar", 2, 5)
