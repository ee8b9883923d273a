"""Output folders that go on where they were stopped, if they are asked for what they were begun with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.storage.outputs import OutputKind, begin_output, check_output, settings_of
from keyorbit.storage.settings import differing


def check_goes_on(folder: Path, kind: OutputKind, overwrite: bool = False) -> None:
    """Raise an error unless a folder can take an output, or has one that may go on; nothing is changed.

    Raises:
        InputError: as :func:`check_output`.
    """
    if overwrite or not folder.is_dir() or settings_of(folder, kind) is None:
        check_output(folder, kind, overwrite)


def go_on_with(folder: Path, kind: OutputKind, settings: Mapping[str, Any], overwrite: bool = False) -> None:
    """Begin an output, or go on with what was stopped there.

    Args:
        folder: the folder.
        kind: of the output.
        settings: all that the results depend on, as JSON keeps it.
        overwrite: begin anew. Default False.

    Raises:
        InputError: there are results of other settings, or as :func:`check_output`.
    """
    before = None if overwrite else settings_of(folder, kind)
    if before is None:
        begin_output(folder, kind, overwrite, settings=settings)
    elif other := differing(settings, before):
        raise InputError(
            f"{folder} holds results of other {', '.join(other)}: give the same to go on with them, another folder, or "
            "--overwrite to replace them"
        )
