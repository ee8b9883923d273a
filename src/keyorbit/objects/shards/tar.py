"""Tar shards as WebDataset reads them: which objects are in one, and the files of one of them.

Only headers are read for the former, and nothing at all beside a shard that has an index (:mod:`.index`). Files are
plain bytes here: nothing is unpacked to the disk by a name that stands in a shard, and nothing is decoded that is no
picture, mesh or JSON.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError, first_line
from keyorbit.objects.shards.names import holds_object, is_wanted, split_name
from keyorbit.storage.addresses import is_remote, shown
from keyorbit.storage.places import opened, read_if_there, read_range

BLOCK = 512
AGAIN = "fetch or pack it again"
# What stands for the objects that are lost where a shard is cut.
_CUT = "cut"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar shard.

    Attributes:
        file: its name behind the object's key, such as ``cond.png``.
        offset: of its bytes in the shard; the header is the block before.
        size: in bytes.
        name: as it stands in the shard.
    """

    file: str
    offset: int
    size: int
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a tar shard.

    Attributes:
        key: that its files have in common.
        members: its files, in their order.
        problem: why it cannot be read; default empty.
    """

    key: str
    members: tuple[Member, ...]
    problem: str = ""


def index_place(shard: Path) -> Path:
    """Where the index of a shard lies, as NVIDIA's DALI names it: ``x.idx`` beside ``x.tar``."""
    head, mark, query = shard.as_posix().partition("?")
    path = Path(head)
    return Path(f"{path.with_name(path.name.partition('.')[0] + '.idx').as_posix()}{mark}{query}")


def tar_entries(shard: Path) -> Sequence[Entry]:
    """The objects in a shard; those of the last two that were looked into are kept.

    What is cut off is an object with a problem.

    Raises:
        InputError: it is missing, cannot be reached, is no tar file, or its index is damaged.
    """
    return _kept(shard, _stamp(shard), _stamp(index_place(shard)))


def _stamp(path: Path) -> tuple[int, int]:
    """What changes where a file on this disk is replaced; elsewhere nothing is asked."""
    if is_remote(path) or not path.exists():
        return 0, 0
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=2)
def _kept(shard: Path, stamp: tuple[int, int], index_stamp: tuple[int, int]) -> Sequence[Entry]:
    return entries_by(read_if_there([index_place(shard)])[0], shard)


def forget() -> None:
    """Let go of the shards that were looked into."""
    _kept.cache_clear()


def entries_by(index: bytes | None, shard: Path) -> list[Entry]:
    """The objects of a shard by what its index holds; None: it has none.

    Raises:
        InputError: as :func:`tar_entries`.
    """
    return scanned(shard) if index is None else entries_in(index, shard)


def entries_in(index: bytes, shard: Path) -> list[Entry]:
    """The objects of a shard by its index, in DALI's format v1.2: name, offset, size and path of each file.

    Raises:
        InputError: it is of another format, or of an older version.
    """
    where = shown(index_place(shard))
    try:
        first, *lines = index.decode().rstrip("\n").split("\n")
        version, count = first.split()
        rows = [line.split(" ") for line in lines]
        if version != "v1.2" or len(rows) != int(count) or any(len(row) % 4 or not row[0] for row in rows):
            raise ValueError(f"its first line is {first[:40]!r}, and {len(rows)} lines follow")
        found = [[Member(r[i], int(r[i + 1]), int(r[i + 2]), r[i + 3]) for i in range(0, len(r), 4)] for r in rows]
        if any(one.offset < BLOCK or one.size < 0 for members in found for one in members):
            raise ValueError("it has a place before the shard's first file")
    except ValueError as error:
        raise InputError(f"{where} is no index of version v1.2 ({first_line(error)}): delete it") from error
    return _usable(_entry(members) for members in found)


def _entry(members: Sequence[Member]) -> Entry:
    split = split_name(members[0].name)
    return Entry("" if split is None else split[0], tuple(members))


def _usable(entries: Iterator[Entry]) -> list[Entry]:
    return [one for one in entries if one.problem or (one.key and holds_object(m.file for m in one.members))]


def scanned(shard: Path) -> list[Entry]:
    """The objects of a shard by the headers of all its files.

    Raises:
        InputError: it is no tar file.
    """
    with opened(shard) as file:
        return _usable(_grouped(_members(file, shard)))


def _grouped(members: Iterator[Member | Entry]) -> Iterator[Entry]:
    """Files one after the other that have one key are one object's; an entry is why there are no more."""
    key, held = "", list[Member]()
    for one in members:
        if isinstance(one, Entry):
            if held and one.key != key:
                yield Entry(key, tuple(held))
            yield one
            return
        split = split_name(one.name)
        if split is None:
            continue
        if held and (split[0] != key or any(split[1] == other.file for other in held)):
            yield Entry(key, tuple(held))
            held = []
        key = split[0]
        held.append(Member(split[1], one.offset, one.size, one.name))
    if held:
        yield Entry(key, tuple(held))


def _members(file: Any, shard: Path) -> Iterator[Member | Entry]:
    """The files in a shard; in the end, where it is cut or damaged, an entry that says so."""
    size = file.seek(0, 2)
    file.seek(0)
    where = shown(shard)
    cut = f"{where} ends after {size:,} bytes, before its end mark: {AGAIN}"
    if size == 0:
        raise InputError(f"{where} is an empty file, no shard: {AGAIN}")
    try:
        tape = tarfile.TarFile(fileobj=file, mode="r", encoding="utf-8")
    except tarfile.TarError as error:
        raise InputError(f"{where} is no tar file, or a compressed one: {first_line(error)}") from error
    with tape:
        while True:
            try:
                info = tape.next()
                tape.members = []  # type: ignore[attr-defined]  # which would hold all that were read
            except (tarfile.TarError, EOFError) as error:
                if tape.offset > size:
                    yield Entry(_CUT, (), cut)
                else:
                    yield Entry(_CUT, (), f"{where} is damaged at byte {tape.offset:,} ({first_line(error)}): {AGAIN}")
                return
            if info is None:
                file.seek(tape.offset)
                block = file.read(BLOCK)
                if len(block) < BLOCK:
                    yield Entry(_CUT, (), cut)
                elif block.count(0) < BLOCK:
                    yield Entry(_CUT, (), f"{where} is damaged at byte {tape.offset:,}: {AGAIN}")
                return
            if info.isreg() and not info.issparse():
                if info.offset_data + info.size > size:
                    key, _ = split_name(info.name) or (_CUT, "")
                    yield Entry(key, (), f"{where} ends after {size:,} bytes, within {info.name!r:.80}: {AGAIN}")
                    return
                yield Member("", info.offset_data, info.size, info.name)


def read_members(shard: Path, entry: Entry, where: str) -> dict[str, bytes]:
    """The files of one object that are read here at all, by their names, in one piece of the shard.

    Raises:
        InputError: it is cut, or the shard is not the one that its index is of; or it cannot be reached.
    """
    if entry.problem:
        raise InputError(entry.problem)
    wanted = [one for one in entry.members if is_wanted(one.file)]
    start, end = min(one.offset for one in wanted) - BLOCK, max(one.offset + one.size for one in wanted)
    data = read_range(shard, start, end)
    found = {}
    for one in wanted:
        at = one.offset - start
        piece = data[at : at + one.size]
        if len(piece) < one.size:
            raise InputError(f"{where}: the shard ends within {one.file}: {AGAIN}")
        _check_header(data[at - BLOCK : at], one, shard, where)
        found[one.file] = piece
    return found


def _check_header(block: bytes, member: Member, shard: Path, where: str) -> None:
    """Raise InputError where the block before a file's bytes is not its header."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        elsewhere = len(member.name) > 99 or not member.name.isascii()  # in a header of its own before this one
        same = info.size == member.size and (elsewhere or info.name == member.name)
    except tarfile.HeaderError:
        same = False
    if not same:
        index = index_place(shard)
        raise InputError(
            f"{where}: {member.file} is not where the shard's index says, so one of them is damaged or of another "
            f"shard: delete {shown(index)}, or {AGAIN}"
        )
