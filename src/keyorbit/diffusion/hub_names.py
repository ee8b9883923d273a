"""Names of repositories on the Hugging Face Hub, which look as paths do."""

import re
from pathlib import Path

from keyorbit.errors import InputError

# As the Hub names repositories.
_ID = re.compile(r"\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b", re.ASCII)


def check_hub_id(name: str, what: str) -> None:
    """Whether a name can be meant as a repository of the Hub: not one whose owner is a folder here.

    Raises:
        InputError: it cannot.
    """
    if not is_hub_id(name):
        raise InputError(f"no {what} at {name}; give a folder that is there, or a Hub id such as owner/name")
    owner = name.partition("/")[0]
    if Path(owner).is_dir():
        raise InputError(
            f"there is a folder {owner} here, but no {name}; give a folder that is there (the {what} {name} of the Hub "
            "can be had from another folder)"
        )


def is_hub_id(name: str) -> bool:
    """Whether it has the form of a repository's name on the Hub."""
    return bool(_ID.fullmatch(name)) and not any(wrong in name for wrong in ("--", "..")) and name[-4:] != ".git"
