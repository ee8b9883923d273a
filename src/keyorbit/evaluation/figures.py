"""The figures of evaluations that the terminal and the report show, read from the evaluation's JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from keyorbit.evaluation.measures import MEASURES, WRONG_TURN_DEG

Unit = Literal["%", "px", "°", "0…1"]


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    Attributes:
        key: path of the number in :meth:`keyorbit.Evaluation.to_dict`, with dots between the levels.
        label: name in tables.
        unit: "%" is a share, shown in percent.
        better: direction.
    """

    key: tuple[str, ...]
    label: str
    unit: Unit
    better: Literal["less", "more"]

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}"

    def text(self, evaluation: Mapping[str, Any]) -> str | None:
        """Return the number as in tables: one decimal in percent, else two; None where the truth does not allow it."""
        value: Any = evaluation
        for name in self.key:
            value = None if value is None else value.get(name)
        return None if value is None else percent(value) if self.unit == "%" else f"{value:.2f}"


FIGURES = (
    Figure(("reprojection",), "reprojection error (median), of view side", "%", "less"),
    Figure(("landmark_3d",), "3D landmark error (mean: MPJPE), of object size", "%", "less"),
    Figure(("landmark_3d_median",), "3D landmark error (median object), of object size", "%", "less"),
    Figure(("landmark_2d",), "2D landmark error of visible ones (mean), of view side", "%", "less"),
    Figure(("landmark_2d_median",), "2D landmark error of visible ones (median object), of view side", "%", "less"),
    Figure(("dual_alignment",), "dual alignment score (Skeleton Merger)", "0…1", "more"),
    Figure(("coverage",), "landmarks with a keypoint within a tenth of the size", "%", "more"),
    Figure(("on_object",), "keypoints on the object", "%", "more"),
    Figure(("input", "elevation_error_deg"), "input picture: elevation error (median)", "°", "less"),
    Figure(("input", "reprojection"), "input picture: reprojection error (median), of side", "%", "less"),
    Figure(("input", "landmark_2d"), "input picture: landmarks drawn onto it (median), of side", "%", "less"),
    *(Figure(("measures", name), m.label, m.unit, m.better) for name, m in MEASURES.items() if m.shown),
)


def percent(value: float | None) -> str:
    """Format a share in percent with one decimal; – for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def wrongly_turned(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the names of the objects whose keypoints are turned by more than 45° about the vertical."""
    turns = {row["name"]: row.get("turn_deg") for row in evaluation["objects"]}
    return [name for name, turn in turns.items() if turn is not None and abs(turn) > WRONG_TURN_DEG]


def told(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[Figure, dict[str, str | None]]]:
    """Return the figures that at least one of the evaluations has, each with its text for every evaluation."""
    rows = [(figure, {name: figure.text(one) for name, one in evaluations.items()}) for figure in FIGURES]
    return [(figure, texts) for figure, texts in rows if any(text is not None for text in texts.values())]
