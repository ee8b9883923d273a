"""The command line. Exit status 0; 2 for bad use or input, with one line that says what; 1 if we failed."""

import io
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer

from keyorbit.cli.annotate import annotate_command
from keyorbit.cli.app import app_command
from keyorbit.cli.cache import cache_command
from keyorbit.cli.convert import convert_command
from keyorbit.cli.dataset import dataset_list, dataset_make, dataset_render
from keyorbit.cli.demo import demo_command
from keyorbit.cli.detect import detect_command
from keyorbit.cli.discover import discover_command
from keyorbit.cli.doctor import doctor_command
from keyorbit.cli.evaluate import evaluate_command
from keyorbit.cli.examples import epilog
from keyorbit.cli.generate import generate_command
from keyorbit.cli.inspect import inspect_command
from keyorbit.cli.mark import mark_command
from keyorbit.cli.name import name_command
from keyorbit.cli.options import checks_options
from keyorbit.cli.pack import dataset_pack
from keyorbit.cli.protocol import protocol_command
from keyorbit.cli.report import report_command
from keyorbit.cli.shortage import explains_shortage
from keyorbit.cli.telling import told_apart
from keyorbit.cli.terminal import bars, console, errors
from keyorbit.cli.train import train_command
from keyorbit.errors import InputError
from keyorbit.ranks import first_launched, launched
from keyorbit.storage.folder_names import readable
from keyorbit.storage.lock import in_use
from keyorbit.values import short

log = logging.getLogger(__name__)
# Options that may stand before a command and anywhere behind it.
_GENERAL = ("-q", "--quiet", "-v", "--verbose")
# Commands whose --out is a folder that no other process may write meanwhile.
_ALONE = ("discover", "mark", "cache", "train", "detect", "evaluate", "stablekeypoints", "render", "generate", "demo")


class _Stopped(BaseException):
    """A launcher ends this process: no error of what is at work just then, which nobody may take for its own."""


def new_app() -> typer.Typer:
    """All commands, in the order that help lists them."""
    app = typer.Typer(
        help=__doc__,
        epilog="Begin with 'keyorbit demo', or 'keyorbit detect chair.png'. 'keyorbit doctor' tells what is missing.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    dataset = typer.Typer(
        name="dataset",
        help="Procedural objects with ground truth, mesh files at the model's cameras, and shards of many objects.",
        no_args_is_help=True,
    )
    protocol = typer.Typer(
        name="protocol",
        help="Published protocols from end to end, next to the published numbers.",
        no_args_is_help=True,
    )
    app.callback(invoke_without_command=True)(_about)
    app.add_typer(dataset)
    app.add_typer(protocol)
    for group, name, command in (
        (app, "demo", demo_command),
        (app, "doctor", doctor_command),
        (app, "generate", generate_command),
        (app, "discover", discover_command),
        (app, "cache", cache_command),
        (app, "train", train_command),
        (app, "detect", detect_command),
        (app, "evaluate", evaluate_command),
        (app, "name", name_command),
        (app, "mark", mark_command),
        (protocol, "stablekeypoints", protocol_command),
        (app, "report", report_command),
        (app, "app", app_command),
        (app, "annotate", annotate_command),
        (app, "inspect", inspect_command),
        (app, "convert", convert_command),
        (dataset, "make", dataset_make),
        (dataset, "render", dataset_render),
        (dataset, "pack", dataset_pack),
        (dataset, "list", dataset_list),
    ):
        full = name if group is app else f"{group.info.name} {name}"
        group.command(name, epilog=epilog(full))(
            explains_shortage(checks_options(_telling(_alone(command) if name in _ALONE else command, full)))
        )
    return app


def _telling(command: Callable[..., None], name: str) -> Callable[..., None]:
    """The command, with what it tells as JSON apart from what it prints."""

    @wraps(command)
    def run(**given: Any) -> None:
        with told_apart(given.get("json_file"), name):
            command(**given)

    return run


def _alone(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which holds the folder that it writes from its start to its end."""

    @wraps(command)
    def run(**given: Any) -> None:
        with nullcontext() if given["out"] is None else in_use(given["out"], first_launched()):
            command(**given)

    return run


def _about(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, results and errors only.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tell what is done, with what, where it goes and how long it takes.")
    ] = False,
) -> None:
    if quiet and verbose:
        raise InputError("--quiet and --verbose exclude each other")
    bars.quiet = quiet
    logging.getLogger("keyorbit").setLevel(logging.INFO if verbose and first_launched() else logging.WARNING)
    if verbose:
        logging.getLogger("py.warnings").setLevel(logging.WARNING)
    if version:
        from importlib.metadata import version as package_version

        console.print(package_version("keyorbit"))
        raise typer.Exit


def main() -> None:
    """Entry point of ``keyorbit`` and ``python -m keyorbit``."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
    # Those of libraries, such as Pillow's of a picture's damaged EXIF: --verbose shows them.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    several = launched() > 1
    if several:  # a launcher ends all processes where one is gone
        signal.signal(signal.SIGTERM, _terminated)
    began = time.monotonic()
    try:
        _check_words(sys.argv[1:])
        _check_environment(os.environ)
        sys.exit(new_app()(_in_front(sys.argv[1:]), standalone_mode=False))
    except (InputError, _Stopped) as error:
        _fail(str(error), several)
    except BrokenPipeError:  # whoever read our output has left
        sys.stdout = None
        sys.exit(1)
    except OSError as error:  # what nobody foresaw of a disk, a name or a network is the user's to mend all the same
        log.info("", exc_info=True)
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"the system refused: {where}{error.strerror or error}", several)
    except (KeyboardInterrupt, typer.Abort):
        errors.print("keyorbit: stopped", markup=False)
        sys.exit(130)
    except Exception as error:
        _fail(_usage(error), several)
    finally:
        log.info("%.1f s in all", time.monotonic() - began)
        if several:  # the rest is the interpreter's, which may be ended without a word
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_front(words: Sequence[str]) -> list[str]:
    """The words with the options of all commands in front, where typer takes them: people write them anywhere."""
    end = words.index("--") if "--" in words else len(words)
    general = [word for word in words[:end] if word in _GENERAL]
    return [*general, *(word for word in words[:end] if word not in _GENERAL), *words[end:]]


def _check_words(words: Sequence[str]) -> None:
    """Raise InputError for an empty word: a shell's variable that is not set. As a path it would name this folder."""
    for before, word in zip(("", *words), words, strict=False):
        if word and not (word.startswith("--") and word.endswith("=")):
            continue
        option = word[:-1] or (before if before.startswith("-") else "an argument")
        if option != "--skeleton":  # which may be empty
            raise InputError(f"{option} is empty; give a value, or leave it out")


def _check_environment(values: Mapping[str, str]) -> None:
    """Raise InputError for variables of the Hub's library that would stop it with a traceback when it is imported."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        if not (value := values.get(name, "0")).strip().isdecimal():
            raise InputError(f"the variable {name} cannot be {short(value)}; it must be a whole number of seconds")
    try:
        urlsplit(values.get("HF_ENDPOINT", "")).port  # noqa: B018
    except ValueError as error:
        raise InputError(f"the variable HF_ENDPOINT cannot be {short(values['HF_ENDPOINT'])}: {error}") from error


def _usage(error: Exception) -> str:
    """What typer says of a wrong call, which is known by its method only: its class moved between versions.

    Raises the error itself where it is another one.
    """
    if not hasattr(error, "format_message"):
        raise error
    said = " ".join(error.format_message().split()).rstrip(".")
    if not said:  # no words were given, and the help was printed
        sys.exit(2)
    command = getattr(getattr(error, "ctx", None), "command_path", "keyorbit")
    return f"{said}; see '{command} --help'"


def _fail(sentence: str, several: bool) -> NoReturn:
    if several:  # one sentence is enough
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    errors.print(f"keyorbit: {readable(sentence)}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def _terminated(number: int, frame: object) -> None:
    raise _Stopped(
        "stopped from outside, as when another process of the run is gone; what was finished is kept: start it again "
        "('discover' and 'train' with --resume)"
    )
