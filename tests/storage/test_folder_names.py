"""Names from outside become valid text on one line, and distinct names of folders."""

import pytest

from keyorbit.storage.folder_names import folder_names, readable


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
    ],
)
def test_a_name_is_text_on_one_line(name, text):
    assert readable(name) == text


def test_folders_stay_where_they_are_put():
    names = ["../x", "/x", "C:\\x", "NUL", "aux.png", "", ".", "..", "a.", "x" * 300, "a\n", "\udcff", ".hidden"]
    made = folder_names(names)
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert name.strip(". ")
        assert not set(name) & set('/\\:<>"|?*\n')
        assert not name.startswith(".")
        assert len(name.encode()) <= 210
