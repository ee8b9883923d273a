"""What was annotated, as files for other tools."""

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from keyorbit.app.seen import Point, Seen
from keyorbit.errors import InputError
from keyorbit.objects.picture_marks import view_file
from keyorbit.output.annotations import write_annotated
from keyorbit.output.pictured import Pictured
from keyorbit.storage.folder_names import folder_names

if TYPE_CHECKING:
    from keyorbit.app.annotating import Annotating
    from keyorbit.app.refitting import Refitting

_NAME = "annotations"


def archived(work: "Annotating", model: "Refitting", folder: Path) -> Path:
    """Write what was confirmed or marked, and the tokens, as one archive in ``folder``; return it.

    Raises:
        InputError: there is nothing yet, or the disk refuses.
    """
    inside = folder / _NAME
    write_export(work, inside)
    model.tokens.save(inside / "tokens.safetensors")
    try:
        made = shutil.make_archive(str(folder / _NAME), "zip", folder, _NAME)
        shutil.rmtree(inside)
    except OSError as error:
        raise InputError(f"cannot write the archive: {error}") from error
    return Path(made)


def write_export(work: "Annotating", folder: Path, overwrite: bool = False, everything: bool = False) -> int:
    """Write confirmed and marked objects as COCO, CVAT and Label Studio keypoints; return how many there were.

    Of an object that is not confirmed, only the points that were marked have a place.

    Args:
        work: the annotations; the objects that are written have been read.
        folder: where they go.
        overwrite: replace what an earlier export wrote there. Default False.
        everything: also what the model found and nobody has confirmed, as predictions. Default False.

    Raises:
        InputError: there is nothing yet, or as :func:`keyorbit.output.annotations.write_annotated`.
    """
    items, pictures, count = list[Pictured](), dict[str, bytes](), 0
    for name, own in zip(work.objects, folder_names(work.objects), strict=True):
        seen, reviewed = work.seen(name), name in work.reviewed
        marked = {mark.name for mark in work.marks if mark.object == name}
        if seen is None or not (reviewed or marked or everything):
            continue
        count += 1
        whole = reviewed or everything
        shown = [point if whole or point.name in marked else Point(point.name) for point in work.points(name)]
        by_hand = reviewed or (bool(marked) and not everything)
        for view, picture in enumerate(seen.views):
            pictures[view_file(own, view)] = picture
            items.append(_pictured(view_file(own, view), seen, shown, view, by_hand))
        if seen.picture is not None:
            pictures[view_file(own, None)] = seen.picture
            items.append(_pictured(view_file(own, None), seen, shown, None, by_hand))
    if not items:
        raise InputError("there is nothing to export yet: mark a point, or confirm an object")
    write_annotated(folder, items, pictures, work.names, overwrite)
    return count


def _pictured(file: str, seen: Seen, points: Sequence[Point], view: int | None, by_hand: bool) -> Pictured:
    """The points on one picture; on the input picture nothing is known of what hides them."""
    places = [point.picture_xy if view is None else point.xy[view] if point.xy else None for point in points]
    clear = np.array([view is None or (view < len(point.clear) and point.clear[view]) for point in points])
    there = np.array([place is not None and all(0 <= share <= 1 for share in place) for place in places])
    xy = np.array([place or (0.5, 0.5) for place in places])
    with Image.open(io.BytesIO(seen.picture or b"" if view is None else seen.views[view])) as picture:
        width, height = picture.size
    found = there if by_hand else there & clear
    return Pictured(file, width, height, xy, np.full(len(points), seen.certainty), found, there & ~clear, by_hand)
