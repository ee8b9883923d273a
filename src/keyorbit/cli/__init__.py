"""The command line: an entry point, and a module for each command."""

from keyorbit.cli.main import app, main

__all__ = ["app", "main"]
