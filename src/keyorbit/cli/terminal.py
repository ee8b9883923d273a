"""What goes to the terminal: results, complaints and progress."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from keyorbit.errors import InputError
from keyorbit.storage.folder_names import readable

# Names and paths may hold what would be markup, or the code of an emoji.
console, errors, bars = (Console(stderr=there, markup=False, emoji=False) for there in (False, True, True))

# Lines of problems that are printed.
PROBLEMS = 20


@runtime_checkable
class Tick(Protocol):
    """Shows that ``done`` of a stage's ``total`` are finished, with the figures of that moment."""

    def __call__(self, stage: str, done: int, total: int, values: dict[str, float]) -> None: ...


@contextmanager
def progress(shown: bool = True) -> Iterator[Tick]:
    """A bar per stage on a terminal; elsewhere a plain line at each tenth. Of several processes one shows it."""
    if not shown:
        yield lambda stage, done, total, values: None
        return
    if not bars.is_terminal or bars.quiet:
        yield _plain_line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=bars) as display:
        tasks: dict[str, Any] = {}

        def tick(stage: str, done: int, total: int, values: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = display.add_task(stage, total=total, note="")
            display.update(tasks[stage], completed=done, note=_note(values))

        yield tick


def _plain_line(stage: str, done: int, total: int, values: dict[str, float]) -> None:
    if done == total or done % max(1, total // 10) == 0:
        bars.print(f"{stage} {done}/{total} {_note(values)}".rstrip(), markup=False, highlight=False, soft_wrap=True)


def _note(values: dict[str, float]) -> str:
    shown = {name: value for name, value in values.items() if name != "seconds"}
    return " ".join(f"{name} {value:.4f}" for name, value in shown.items())


def left_out(problems: Sequence[str], count: int, total: int, place: str = "") -> InputError:
    """Print why objects were left out, all but the last of those that are given; the error says that, and how many.

    ``place`` says where all are listed.
    """
    *others, last = problems
    for problem in others:
        errors.print(f"left out: {readable(problem)}", markup=False, highlight=False, soft_wrap=True)
    return InputError(f"{count:,} of {total:,} objects are left out{place}: {last}")
