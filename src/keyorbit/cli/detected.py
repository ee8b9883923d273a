"""What ``keyorbit detect`` tells of the objects on which it found keypoints."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from keyorbit.cli.cutouts import cut_out_words, gathered_lines, show_words
from keyorbit.cli.terminal import console
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
        judgement: whether the tokens know it, and the colour of that; empty where it is not known.
        advice: what would help, a long sentence and often that of other objects too; empty for nothing.
        lines: what else there is to say.
        sure: whether it is known how far to trust its keypoints.
        spatial: whether they are in 3D.
        seen: keypoints with a score that counts; None where they mean nothing.
        error: median reprojection error, in sides of the view; None where there is none.
        kind: whose tokens were taken; None where they were given.
        known: probability that the tokens know the object; None where that is not known.
    """

    cells: tuple[str, ...]
    cut_out: str
    judgement: tuple[str, str]
    advice: str
    lines: tuple[str, ...]
    sure: bool
    spatial: bool
    seen: int | None
    error: float | None
    kind: str | None
    known: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        name, *_, place = self.cells
        row = {"object": name, "keypoints": self.seen, "reprojection": self.error, "kind": self.kind}
        return {**row, "known": self.known, "written_to": place}


def told(detection: Detection, thing: ObjectViews, place: Path, least: float | None) -> Told:
    """What is told of an object whose files are at ``place``; keypoints below ``least`` were withheld."""
    from keyorbit.cli.tables import input_line
    from keyorbit.evaluation.evaluate import SEEN
    from keyorbit.evaluation.figures import percent

    points, name, lines = detection.keypoints_3d, detection.name, list[str]()
    error = None if points is None else float(points.reprojection_error.median())
    score = detection.keypoints_2d.score[0] if points is None else points.score
    seen = int((score > SEEN).sum()) if detection.trusted else None
    figures = ("–", "–") if seen is None else (str(seen), percent(error))
    several = len(detection.views) > 1
    cut_out = cut_out_words(thing, several, CUT_OUT_FILE if several else "view_0.png")
    if detection.kinds:
        lines.append(f"{name}: {kinds_words(detection.kinds)}")
    if detection.withheld:
        lines.append(f"{name}: withheld, below {least:g}: {', '.join(map(str, detection.withheld))}")
    if detection.framing is not None and detection.framing.recentred:
        lines.append(f"{name}: {detection.framing.words}")
    if detection.input_camera is not None:
        lines.append(f"{name}: {input_line(detection.input_camera)}")
    cells = (name, *figures, readable(str(place)))
    kind = detection.kinds[0][0] if detection.kinds else None
    trust = detection.confidence
    judgement, advice = (("", ""), "") if trust is None else ((trust.judgement, trust.color), trust.advice)
    known, sure = None if trust is None else trust.known, trust is not None or points is None
    error = None if seen is None else error
    told_lines = tuple(lines)
    return Told(cells, cut_out, judgement, advice, told_lines, sure, points is not None, seen, error, kind, known)


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
    show_words([(one.cells[0], one.cut_out) for one in objects])
    often = Counter(one.advice for one in objects)
    for one in objects:
        text, colour = one.judgement
        if text:
            own = f": {one.advice}" if one.advice and often[one.advice] == 1 else ""
            _print(f"{one.cells[0]}: {text}{own}", colour)
        for line in one.lines:
            _print(line)
    for line in gathered_lines([(one.cells[0], one.advice) for one in objects if often[one.advice] > 1]):
        _print(line)
    if not all(one.sure for one in objects):
        console.print(f"Confidence: {NO_CONFIDENCE}.", markup=False, soft_wrap=True)
    if not all(one.spatial for one in objects):
        console.print("A single view has no 3D: keypoints in 2D only, and no points.glb, points.ply or colmap.")


def _print(line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
