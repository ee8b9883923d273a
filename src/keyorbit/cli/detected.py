"""What ``keyorbit detect`` tells of the objects on which it found keypoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from keyorbit.cli.cutouts import cut_out_words
from keyorbit.cli.terminal import bars, console
from keyorbit.detection.confidence import NO_CONFIDENCE
from keyorbit.detection.found import Detection
from keyorbit.objects.background import CUT_OUT_FILE
from keyorbit.objects.dataset import ObjectViews
from keyorbit.storage.folder_names import readable


@dataclass(frozen=True)
class Told:
    """What is told of one object, without its pictures.

    Attributes:
        cells: its row of the table.
        cut_out: what it was cut out by; empty where it was not.
        lines: of text, each with the style in which it is printed.
        sure: whether it is known how far to trust its keypoints.
        spatial: whether they are in 3D.
    """

    cells: tuple[str, ...]
    cut_out: str
    lines: tuple[tuple[str, str | None], ...]
    sure: bool
    spatial: bool


def told(detection: Detection, thing: ObjectViews, place: Path, least: float | None) -> Told:
    """What is told of an object whose files are at ``place``; keypoints below ``least`` were withheld."""
    from keyorbit.cli.tables import input_line
    from keyorbit.evaluation.evaluate import SEEN
    from keyorbit.evaluation.figures import percent

    points, name, lines = detection.keypoints_3d, detection.name, list[tuple[str, str | None]]()
    error = None if points is None else float(points.reprojection_error.median())
    score = detection.keypoints_2d.score[0] if points is None else points.score
    figures = (str(int((score > SEEN).sum())), percent(error)) if detection.trusted else ("–", "–")
    several = len(detection.views) > 1
    cut_out = cut_out_words(thing, several, CUT_OUT_FILE if several else "view_0.png")
    if detection.kinds:
        lines.append((f"{name}: {kinds_words(detection.kinds)}", None))
    if (trust := detection.confidence) is not None:
        lines.append((f"{name}: {trust.words}", trust.color))
    if detection.withheld:
        lines.append((f"{name}: withheld, below {least:g}: {', '.join(map(str, detection.withheld))}", None))
    if detection.framing is not None and detection.framing.recentred:
        lines.append((f"{name}: {detection.framing.words}", None))
    if detection.input_camera is not None:
        lines.append((f"{name}: {input_line(detection.input_camera)}", None))
    cells = (name, *figures, readable(str(place)))
    return Told(cells, cut_out, tuple(lines), trust is not None or points is None, points is not None)


def kinds_words(kinds: Sequence[tuple[str, float]]) -> str:
    """Which kind's tokens were taken, and how well the others know the object."""
    (taken, known), *others = kinds
    rest = ", ".join(f"{kind} {probability:.0%}" for kind, probability in others)
    return f"read by the tokens of kind {taken} ({known:.0%}; {rest}); --kind takes others"


def tell(objects: Sequence[Told]) -> None:
    """Print a table of the objects, and what else there is to say of them."""
    table = Table("object", "keypoints", "reprojection, % of side", "written to")
    for one in objects:
        table.add_row(*one.cells)
    console.print(table)
    for one in objects:
        if one.cut_out:
            bars.print(one.cut_out, soft_wrap=True)
    for one in objects:
        for line, style in one.lines:
            console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    if not all(one.sure for one in objects):
        console.print(f"Confidence: {NO_CONFIDENCE}.", markup=False, soft_wrap=True)
    if not all(one.spatial for one in objects):
        console.print("A single view has no 3D: keypoints in 2D only, and no points.glb, points.ply or colmap.")
