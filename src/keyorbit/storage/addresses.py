"""Addresses such as ``s3://bucket/x.tar``, which commands hand on as paths, and paths write ``s3:/bucket/x.tar``."""

import re
from pathlib import Path

# A drive of Windows has one letter.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_SECRET = re.compile(r"(https?://)[^/\s'\"@]*@|(?<=[^\s])\?[^\s'\"]+")
# Schemes of this disk, and of the web.
ON_DISK, _WEB = ("file", "local"), ("http", "https")


def is_remote(path: Path) -> bool:
    """Whether a path is an address of another machine, or of a file system that fsspec knows."""
    return _SCHEME.match(path.as_posix()) is not None


def address_of(path: Path) -> str:
    """The address that a path stands for; of a file on the disk, its path as it is."""
    text = path.as_posix()
    found = _SCHEME.match(text)
    if found is None:
        return str(path)
    slashes = "///" if found[1].lower() in ON_DISK else "//"
    return f"{found[1].lower()}:{slashes}{text[found.end() :]}"


def shown(path: Path) -> str:
    """The address for people and files: without a query, in which signatures stand, and without a password."""
    address = address_of(path)
    if not is_remote(path):
        return address
    scheme, _, rest = address.partition("://")
    if scheme not in _WEB:
        return address
    host, slash, inside = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{inside}"


def plain(path: Path) -> Path:
    """The path without a web address's query: its name and suffix are those of the file."""
    return Path(shown(path)) if address_of(path).partition(":")[0] in _WEB else path


def without_secrets(text: str) -> str:
    """What a library says of web addresses, without their queries and passwords."""
    return _SECRET.sub(r"\1", text)
