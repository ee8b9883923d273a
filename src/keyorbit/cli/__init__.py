"""The command line: an entry point, and a module for each command."""

from keyorbit.cli.main import main, new_app

# Made here: `typer keyorbit.cli utils docs` runs this file twice, and leaves the options for completion out of the page
# if it gets the same object again.
app = new_app()

__all__ = ["app", "main"]
