"""Names for folders in the same parent folder that are valid and distinct on any system."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# What Windows allows in no name, and the names that it keeps for devices, with any suffix.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_PORTS = {f"{kind}{number}" for kind in ("com", "lpt") for number in "0123456789¹²³"}
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | _PORTS
# What would break a line, steer a terminal, or show letters in another order.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# File systems allow 255 bytes; this leaves room for numbers, and for the path above in those that count it.
_LONGEST = 200
# Number of a name's characters that are used in the name of a hidden file beside it.
_BESIDE = 48


def folder_names(names: Sequence[str]) -> list[str]:
    """Change names so that they are valid and distinct folder names on any system. Most names stay as they are.

    Some file systems ignore capitals or how accents are composed, and Windows forbids some characters and the names of
    its devices. Where two names would become the same, the later one gets a number that no other name has. They are in
    UTF-8 on the disk, whatever the locale.
    """
    allowed = [_allowed(name) for name in names]
    own, taken, chosen = {_same(name) for name in allowed}, set[str](), list[str]()
    for name in allowed:
        number, candidate = 1, name
        while _same(candidate) in taken or (number > 1 and _same(candidate) in own):
            number += 1
            candidate = f"{name}_{number}"
        taken.add(_same(candidate))
        chosen.append(on_disk(candidate))
    return chosen


def on_disk(name: str) -> str:
    """Return a text as the name of a file: in UTF-8 on the disk, also where the locale is another one."""
    return os.fsdecode(name.encode())


def name_of(path: Path) -> str:
    """Return a folder's name as text, also for ``.`` and ``..``."""
    return readable(os.path.basename(os.path.abspath(path)))


def beside(path: Path, what: str = "partial") -> Path:
    """Return the temporary path of a file or folder: a hidden name in the same folder, derived from its own name.

    It is always the same name, so that what a killed process left is found and overwritten by the next one. ``what``
    is its ending: ``partial``, the default, is what is not finished, and ``lock`` says who writes it.
    """
    name = path.name
    if len(name) > _BESIDE:  # others may begin alike
        name = f"{name[: _BESIDE - 9]}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return path.with_name(f".{name}.keyorbit.{what}")


def readable(name: str) -> str:
    """Return a name from outside as valid text on one line.

    Names are UTF-8, also where the locale is another one and Python keeps their bytes as half characters. What is no
    valid text could neither be printed nor written to a file; control characters would break lines of other files, or
    steer the terminal.
    """
    with suppress(UnicodeEncodeError):  # another half of a character, as JSON can write it
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    text = name.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(lambda found: " " if found[0].isspace() else "?", text)


def _allowed(name: str) -> str:
    """Return the name as Windows, the strictest system, allows it: not hidden, and short enough for any file system."""
    text = _FORBIDDEN.sub("_", readable(name)).encode()[:_LONGEST].decode("utf-8", "ignore").rstrip(". ")
    if text.startswith(".") or text.partition(".")[0].casefold().strip() in _DEVICES:
        text = "_" + text
    return text or "_"


def _same(name: str) -> str:
    """Return a key that is equal for names which some file system takes for the same."""
    return unicodedata.normalize("NFKD", name).casefold()
