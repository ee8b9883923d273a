"""What commands tell and write of objects that were cut out of their pictures."""

from collections.abc import Sequence
from pathlib import Path

from keyorbit.cli.terminal import bars
from keyorbit.objects.dataset import ObjectViews
from keyorbit.storage.files import make_folder
from keyorbit.storage.folder_names import folder_names


def show_cut_outs(things: Sequence[ObjectViews], several: bool, where: str) -> None:
    """What the objects were cut out by, a line each, and where the cut-outs are; nothing of those that were not."""
    for thing in things:
        if words := cut_out_words(thing, several, where):
            bars.print(words, soft_wrap=True)


def cut_out_words(thing: ObjectViews, several: bool, where: str) -> str:
    """What the object was cut out by, and where its cut-out is; empty where it was not."""
    if thing.shown_image(several) is thing.input_image or thing.cut_out is None:
        return ""
    return f"{thing.name}: {thing.cut_out.words}; see {where}, and correct it with --mask"


def write_cut_outs(folder: Path, things: Sequence[ObjectViews], several: bool) -> None:
    """The objects that were cut out, each under its name, and no others; no folder where there are none."""
    for earlier in folder.glob("*.png"):  # of a run that goes on with other backgrounds
        earlier.unlink()
    cut = [thing for thing in things if thing.shown_image(several) is not thing.input_image]
    for name, thing in zip(folder_names([thing.name for thing in cut]), cut, strict=True):
        thing.shown_image(several).save(make_folder(folder) / f"{name}.png", compress_level=1)
