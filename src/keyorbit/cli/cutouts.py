"""What commands tell and write of objects that were cut out of their pictures."""

from collections.abc import Sequence
from pathlib import Path

from keyorbit.cli.terminal import bars
from keyorbit.objects.dataset import ObjectViews
from keyorbit.storage.files import make_folder
from keyorbit.storage.folder_names import folder_names

# Objects that are named where the same is said of more.
NAMED = 3


def show_cut_outs(things: Sequence[ObjectViews], several: bool, where: str) -> None:
    """What the objects were cut out by, and where the cut-outs are; nothing of those that were not."""
    show_words([(thing.name, cut_out_words(thing, several, where)) for thing in things])


def show_words(said: Sequence[tuple[str, str]]) -> None:
    """What is said of objects by their names, beside what the command is for."""
    for line in gathered_lines(said):
        bars.print(line, soft_wrap=True)


def gathered_lines(said: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each text that is said of objects, with their names, or the first of them and how many; none if empty.

    A folder of photographs would have the same long sentence printed for each.
    """
    names: dict[str, list[str]] = {}
    for name, text in said:
        names.setdefault(text, []).append(name)
    names.pop("", None)
    return [f"{_some(those)}: {text}" for text, those in names.items()]


def _some(names: Sequence[str]) -> str:
    few = ", ".join(names[:NAMED])
    return few if len(names) <= NAMED else f"{few} and {len(names) - NAMED:,} more"


def cut_out_words(thing: ObjectViews, several: bool, where: str) -> str:
    """What an object was cut out by, and where its cut-out is; empty where it was not."""
    if thing.shown_image(several) is thing.input_image or thing.cut_out is None:
        return ""
    return f"{thing.cut_out.words}; see {where}, and correct it with --mask"


def write_cut_outs(folder: Path, things: Sequence[ObjectViews], several: bool) -> None:
    """The objects that were cut out, each under its name, and no others; no folder where there are none."""
    for earlier in folder.glob("*.png"):  # of a run that goes on with other backgrounds
        earlier.unlink()
    cut = [thing for thing in things if thing.shown_image(several) is not thing.input_image]
    for name, thing in zip(folder_names([thing.name for thing in cut]), cut, strict=True):
        thing.shown_image(several).save(make_folder(folder) / f"{name}.png", compress_level=1)
