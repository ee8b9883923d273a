"""How the recipe's commands end when something that they were given is wrong."""

import sys
from collections.abc import Callable
from typing import Any

import typer

from keyorbit.errors import InputError


def run(name: str, command: Callable[..., Any]) -> None:
    """Run a command, a function with typer's annotations or a ``typer.Typer``, with the arguments of the command line.

    What it raises as InputError is one line, "NAME: what is wrong", and exit status 2.
    """
    try:
        if isinstance(command, typer.Typer):
            command()
        else:
            typer.run(command)
    except InputError as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(2)
