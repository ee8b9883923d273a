"""What a command tells, as JSON: ``--json FILE`` of every command that comes to an end by itself."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from keyorbit.cli.inputs import STDIN
from keyorbit.cli.terminal import console
from keyorbit.storage.files import json_text, make_folder, write_text
from keyorbit.storage.outputs import check_file

FORMAT = "keyorbit-told-1"
STDOUT = STDIN
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write what is told here, as JSON; -: to stdout, and the rest to stderr."
    ),
]
# Of commands whose files are older than this, or read by another command: what these begin with.
_MARKS = {"evaluate": '"discovered": {', "name": '"keyorbit-names-1"', "inspect": '"format": "keyorbit-inspect-1"'}


@contextmanager
def told_apart(file: Path | None, command: str) -> Iterator[None]:
    """Check that a command may write its JSON; where that goes to stdout, all else goes to stderr within the block.

    Raises:
        InputError: the file is a folder, or not what this command writes.
    """
    if file is not None and file != STDOUT:
        check_file(file, _mark(command))
    console.stderr = file == STDOUT
    try:
        yield
    finally:
        console.stderr = False


def _mark(command: str) -> str:
    return _MARKS.get(command, f'"command": "{command}"')


def tell_json(file: Path | None, command: str, values: Mapping[str, Any]) -> None:
    """Write what a command tells, where ``--json`` names a file.

    Raises:
        InputError: a number is not finite, or the file cannot be written, or is one that the command itself has made.
    """
    if file is not None and file != STDOUT:
        check_file(file, _mark(command))  # once more: it may be the name of a result
    write_told(file, {"format": FORMAT, "command": command, **values})


def write_told(file: Path | None, data: Mapping[str, Any]) -> None:
    """The same of a format of the command's own.

    Raises:
        InputError: as :func:`tell_json`.
    """
    if file == STDOUT:
        sys.stdout.write(json_text(data, "stdout"))
        sys.stdout.flush()
    elif file is not None:
        make_folder(file.parent)
        write_text(file, json_text(data, str(file)))
