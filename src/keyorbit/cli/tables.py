"""What an evaluation and a protocol found, as tables for the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from keyorbit.evaluation.figures import percent, told, wrongly_turned

if TYPE_CHECKING:  # it stands on the highest floor
    import keyorbit.detection.input_camera
    import keyorbit.evaluation.evaluate
    import keyorbit.evaluation.protocol


# Of objects, in a table that is printed: files hold all.
ROWS = 100


def objects_table(results: "Mapping[str, keyorbit.evaluation.evaluate.Evaluation]") -> Table:
    """A row per object; the results side by side in each cell, so that a line of 80 characters holds them."""
    number = max(len(result) for result in results.values())
    first = f"the first {ROWS} of {number:,} objects; " if number > ROWS else ""
    table = Table(caption=f"{first}{' / '.join(results)}; % of the view's side, and of the object's size")
    table.add_column("object", overflow="fold")
    for title in ("keypoints", "reprojection, %", "landmarks, %"):
        table.add_column(title, justify="right", no_wrap=True)
    for rows in zip(*(result.objects[:ROWS] for result in results.values()), strict=True):
        landmarks = [row.landmark_2d if row.landmark_3d is None else row.landmark_3d for row in rows]
        table.add_row(
            rows[0].name,
            " / ".join(str(row.keypoints) for row in rows),
            " / ".join(percent(row.reprojection) for row in rows),
            " / ".join(map(percent, landmarks)),
        )
    return table


def summary_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """The figures that most readers look for, a column per result; all of them are in the JSON."""
    first: Mapping[str, Any] = next(iter(results.values()), {})
    lacks, count = len(first.get("left_out", ())), len(first.get("objects", ()))
    table = Table(f"{count:,} of {count + lacks:,} objects" if lacks else "all objects")
    for name in results:
        table.add_column(name, justify="right", no_wrap=True)
    for figure, texts in told(results):
        table.add_row(figure.title, *(text or "–" for text in texts.values()))
    return table


def wrong_turn_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each result with objects that were found the wrong way round: their names."""
    named = {name: wrongly_turned(one) for name, one in results.items()}
    return [f"turned the wrong way, {name}: {', '.join(names)}" for name, names in named.items() if names]


def protocol_table(result: "keyorbit.evaluation.protocol.ProtocolResult") -> Table:
    """Ours beside the paper's."""
    from keyorbit.evaluation.protocol import SOURCE

    measured, published = result.measured, result.measured.published
    table = Table("StableKeypoints' protocol", result.dataset)
    table.add_row("metric", f"{measured.name} ({measured.better} is better)")
    table.add_row("unit", measured.unit)
    table.add_row("ours", f"{result.value:.2f}")
    table.add_row("StableKeypoints", "– (no checked source)" if published is None else f"{published:.2f} ({SOURCE})")
    counts = f"{result.optimised_on} / {result.fitted_on} / {result.tested_on}"
    table.add_row("pictures: optimised / fitted / tested", counts)
    return table


def input_line(camera: "keyorbit.detection.input_camera.InputCamera") -> str:
    """What is known of the input picture's elevation."""
    if float(camera.score) == 0:
        return "the input picture's elevation cannot be known from these keypoints"
    return (
        f"the input picture's elevation is {float(camera.elevation_deg):.1f}° ± {float(camera.elevation_std_deg):.1f}°"
    )
