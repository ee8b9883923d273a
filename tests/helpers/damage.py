"""Ways to damage a file: what disks, transfers and people with editors do to it, and what somebody does on purpose."""

import json
import re
import shutil
from contextlib import contextmanager

from hypothesis import strategies as st

from helpers.hostile import WRONG, hostile

CELLS = (
    *("", "nan", "inf", "-inf", "1e400", "-1", "0", "1e30", "a", "9" * 5000, "../../secret", "/etc/passwd", "x" * 300),
    *("\x00", "ä", "=1+1", "1 2 3 4 5", "a\\b", "1,2", '"', "00", "2"),
)
_WORD = re.compile(r"[^\s,:-]+")


CONTENTS = (b"", b"\xff\xfe\x00", b"{}", b"[]", b"[1]", b"1\n2\nnonsense here\n", b"[" * 100_000, b"\0" * 300)


def damages():
    """A hypothesis strategy of functions from a file's bytes to others: None for no file, "folder" for a folder."""
    place = st.floats(0, 1)
    return st.one_of(
        st.sampled_from((None, "folder", *CONTENTS)).map(lambda new: lambda data: new),
        place.map(lambda share: lambda data: data[: int(share * len(data))]),
        st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4).map(_flipped),
        st.tuples(place, st.sampled_from(CELLS)).map(_cell),
        st.tuples(place, st.booleans()).map(_line),
        st.tuples(place, st.sampled_from(WRONG) | hostile()).map(_field),
    )


@contextmanager
def damaged(path, damage):
    """The file, damaged until the end of the block."""
    data = path.read_bytes()
    changed = damage(data)
    try:
        if changed is None or changed == "folder":
            path.unlink()
        if changed == "folder":
            path.mkdir()
        elif changed is not None:
            path.write_bytes(changed)
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(data)


def _flipped(places):
    def change(data):
        changed = bytearray(data)
        for share, value in places:
            if changed:
                changed[int(share * (len(changed) - 1))] = value
        return bytes(changed)

    return change


def _cell(told):
    """One word of a text file replaced."""

    def change(data):
        words = list(_WORD.finditer(text := data.decode("latin-1")))
        if not words:
            return told[1].encode()
        word = words[int(told[0] * (len(words) - 1))]
        return f"{text[: word.start()]}{told[1]}{text[word.end() :]}".encode("latin-1", "replace")

    return change


def _line(told):
    """One line removed, or there twice."""

    def change(data):
        lines = data.split(b"\n")
        i = int(told[0] * (len(lines) - 1))
        return b"\n".join([*lines[:i], *([lines[i]] * 2 if told[1] else []), *lines[i + 1 :]])

    return change


def _field(told):
    """One field of a JSON file replaced; its end where it is none."""

    def change(data):
        try:
            values = {"": json.loads(data)}
        except ValueError:
            return data[:-1]
        places = [(values, "")]
        for inside, key in places:  # which grows on the way
            value = inside[key]
            names = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
            places += [(value, name) for name in names]
        inside, key = places[int(told[0] * (len(places) - 1))]
        inside[key] = told[1]
        return json.dumps(values[""]).encode()

    return change
