"""Files on their way to a machine without a network, and back: ``python -m tiny_model.carry pack NAME DIR FILE...``.

They become one archive, NAME, cut into parts that are small enough to be copied (15 MiB by default). A part's name says
which archive it is of, by the first letters of its digest, and how many parts there are: what lacks is told at once.
``python -m tiny_model.carry unpack DIR OUT`` puts the files of all archives in DIR into OUT.
"""

import hashlib
import io
import re
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keyorbit.errors import InputError
from keyorbit.storage.files import write_bytes
from tiny_model.command import run

PART_BYTES = 15 * 2**20
_PART = re.compile(r"(?P<name>[a-z]+)-(?P<digest>[0-9a-f]{12})\.(?P<part>\d+)-of-(?P<parts>\d+)")


def pack(name: str, files: Sequence[Path], folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write the parts of an archive of files and folders, each by its own name; earlier parts of ``name`` go.

    Raises:
        InputError: the name is not of small letters, a file is not there, or two have one name.
    """
    if not re.fullmatch("[a-z]+", name):
        raise InputError(f"an archive is named {name!r}; its name has small letters alone")
    if missing := [str(path) for path in files if not path.exists()]:
        raise InputError(f"nothing to pack at {', '.join(missing)}: run the recipe until it is made")
    names = [path.name for path in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two files are named {', '.join(twice)}: pack them in folders of other names, or one by one")
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:xz", preset=3) as archive:
        for path in files:
            archive.add(path, path.name)
    content = whole.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:12]
    cuts = range(0, len(content), part_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*-of-*"):
        old.unlink()
    written = []
    for number, start in enumerate(cuts, 1):
        path = folder / f"{name}-{digest}.{number}-of-{len(cuts)}"
        write_bytes(path, content[start : start + part_bytes])
        written.append(path)
    return written


def archives(folder: Path) -> dict[str, list[Path]]:
    """The archives of a folder, each with its parts in order.

    Raises:
        InputError: there is none, a part is missing, or two archives have one name.
    """
    found: dict[str, dict[int, tuple[str, int, Path]]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := _PART.fullmatch(path.name):
            of = f"{match['digest']} in {match['parts']} parts"
            parts = found.setdefault(match["name"], {})
            if any(other != of for other, _, _ in parts.values()):
                raise InputError(f"{folder} holds parts of two archives {match['name']}: remove the older ones")
            parts[int(match["part"])] = (of, int(match["parts"]), path)
    if not found:
        raise InputError(f"{folder} holds no parts of an archive: `python -m tiny_model.carry pack` writes them")
    for name, parts in found.items():
        count = next(iter(parts.values()))[1]
        if missing := [str(number) for number in range(1, count + 1) if number not in parts]:
            raise InputError(f"{folder}: of the {count} parts of {name}, part {', '.join(missing)} is missing")
    return {name: [parts[number][2] for number in sorted(parts)] for name, parts in found.items()}


def unpack(folder: Path, out: Path) -> list[str]:
    """Put what the archives of a folder hold into ``out``, but for what is there; return the names of all.

    Raises:
        InputError: as :func:`archives`, or a part is damaged.
    """
    names = list[str]()
    for name, parts in archives(folder).items():
        content = b"".join(path.read_bytes() for path in parts)
        if hashlib.sha256(content).hexdigest()[:12] not in parts[0].name:
            raise InputError(f"{folder}: a part of {name} is damaged, its digest is another; copy it again")
        out.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as archive:
            for member in archive:
                names.append(member.name)
                if not (out / member.name).exists():
                    archive.extract(member, out, filter="data")
    return names


app = typer.Typer(add_completion=False, help=__doc__)


@app.command("pack")
def pack_command(
    name: Annotated[str, typer.Argument(help="Small letters.")],
    folder: Annotated[Path, typer.Argument(help="Where the parts go.")],
    files: Annotated[list[Path], typer.Argument(help="Files and folders.")],
) -> None:
    """Write the parts of an archive."""
    written = pack(name, files, folder)
    total = sum(path.stat().st_size for path in written)
    sys.stdout.write(f"{len(written)} parts, {total / 2**20:.1f} MiB: {', '.join(path.name for path in written)}\n")


@app.command("unpack")
def unpack_command(folder: Path, out: Path) -> None:
    """Put the files of all archives of FOLDER into OUT."""
    sys.stdout.write(f"{len(unpack(folder, out))} files into {out}\n")


if __name__ == "__main__":
    run("carry", app)
