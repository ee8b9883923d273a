"""Names from outside become valid text on one line, and distinct names of folders."""

import os
import subprocess
import sys

import pytest

from keyorbit.storage.folder_names import folder_names, readable

# Lists a folder, makes one of the same name beside it, and prints the name.
SCRIPT = """
import os, sys
from keyorbit.cli.terminal import console
from keyorbit.storage.folder_names import folder_names, on_disk, readable
sys.stdout.reconfigure(errors="backslashreplace")
name = readable(os.listdir("in")[0])
os.mkdir(os.path.join("out", folder_names([name])[0]))
assert os.path.isdir(os.path.join("in", on_disk(name)))
console.print(name, ":smile:", ascii(name))
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a chair", "a chair"),
        ("Stühle 椅子", "Stühle 椅子"),
        ("a\nb\tc\r", "a b c "),
        ("\x1b[31mred\x07", "?[31mred?"),
        ("a\x85b\u2028c", "a b c"),
        ("gpj\u202e.exe", "gpj?.exe"),
        ("a\udcffb", "a?b"),
        ("\ud800", "?"),
        ("Стул\udcff".encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape"), "Стул?"),  # LC_ALL=C
    ],
)
def test_a_name_is_text_on_one_line(name, text):
    assert readable(name) == text


@pytest.mark.parametrize("name", ["Стул 椅子 🪑", "été [1] [red]x 100% {x} a&b"])
def test_names_are_utf8_whatever_the_locale(name, tmp_path):
    (tmp_path / "in" / name).mkdir(parents=True)
    (tmp_path / "out").mkdir()
    place = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "", "COLUMNS": "200"}
    words = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, cwd=tmp_path, env=os.environ | place, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    told = name.encode("ascii", "backslashreplace").decode()
    assert done.stdout == f"{told} :smile: {name!a}\n"


def test_folders_stay_where_they_are_put():
    names = ["../x", "/x", "C:\\x", "NUL", "aux.png", "", ".", "..", "a.", "x" * 300, "a\n", "\udcff", ".hidden"]
    made = folder_names(names)
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert name.strip(". ")
        assert not set(name) & set('/\\:<>"|?*\n')
        assert not name.startswith(".")
        assert len(name.encode()) <= 210
