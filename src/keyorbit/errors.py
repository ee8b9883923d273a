"""The errors a user can put right."""

from collections.abc import Sequence


class InputError(ValueError):
    """Something given to keyorbit cannot be used; the message names the thing and the remedy.

    The command line prints the message alone and exits with status 2.
    """


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Check a choice.

    Raises:
        InputError: the value is none of the known ones; the message names the option or setting.
    """
    if value not in known:
        raise InputError(f"{name} is {' or '.join(known)}, not '{value}'")
