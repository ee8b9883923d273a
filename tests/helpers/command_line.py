"""The command line in this process: a process of its own would take its time to start."""

import sys

import pytest

from keyorbit.cli import main


def call(patch, *words):
    """Run the command line; returns its exit status."""
    patch.setattr(sys, "argv", ["keyorbit", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0
