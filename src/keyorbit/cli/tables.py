"""What an evaluation and a protocol found, as tables for the terminal."""

from rich.table import Table

from keyorbit.detection.input_camera import InputCamera
from keyorbit.evaluation.evaluate import Evaluation
from keyorbit.evaluation.measures import MEASURES
from keyorbit.evaluation.protocol import SOURCE, ProtocolResult


def objects_table(results: dict[str, Evaluation]) -> Table:
    """A row per object, the results side by side."""
    table = Table("object")
    for name in results:
        table.add_column(f"{name}\nkeypoints", justify="right")
        table.add_column("reprojection\n% of side", justify="right")
        table.add_column("landmarks\n% of size", justify="right")
    for rows in zip(*(result.objects for result in results.values()), strict=True):
        cells = [rows[0].name]
        for row in rows:
            cells += [
                str(row.keypoints),
                percent(row.reprojection),
                percent(row.landmark_2d if row.landmark_3d is None else row.landmark_3d),
            ]
        table.add_row(*cells)
    return table


def summary_table(results: dict[str, Evaluation]) -> Table:
    """The metrics that most readers ask for, a column per result; all of them are in the JSON."""
    table = Table("all objects", *results)
    fields = {
        "reprojection error, % of view side (median)": lambda e: percent(e.reprojection),
        "3D landmark error, % of object size (mean)": lambda e: percent(e.landmark_3d),
        "2D landmark error, visible ones, % of view side (mean)": lambda e: percent(e.landmark_2d),
        "dual alignment score (Skeleton Merger), 0…1": lambda e: number(e.dual_alignment),
        "landmarks with a keypoint within a tenth of the size, %": lambda e: percent(e.coverage),
        "input picture: elevation error, degrees (median)": lambda e: number(e.input and e.input.elevation_error_deg),
        "input picture: reprojection error, % of side (median)": lambda e: percent(e.input and e.input.reprojection),
        "input picture: landmarks drawn onto it, % of side (median)": lambda e: percent(
            e.input and e.input.landmark_2d
        ),
        "keypoints on the object, %": lambda e: percent(e.on_object),
    }
    for name, read in fields.items():
        table.add_row(name, *(read(result) for result in results.values()))  # type: ignore[no-untyped-call]
    for key, measure in MEASURES.items():
        if measure.in_table:
            values = [result.measures.get(key) for result in results.values()]
            if any(value is not None for value in values):
                label = f"{measure.label}, {measure.unit}"
                table.add_row(label, *(percent(v) if measure.unit == "%" else number(v) for v in values))
    return table


def protocol_table(result: ProtocolResult) -> Table:
    """Ours beside the paper's."""
    measured, published = result.measured, result.measured.published
    table = Table("StableKeypoints' protocol", result.dataset)
    table.add_row("metric", f"{measured.name} ({measured.better} is better)")
    table.add_row("unit", measured.unit)
    table.add_row("ours", f"{result.value:.2f}")
    table.add_row("StableKeypoints", "– (no checked source)" if published is None else f"{published:.2f} ({SOURCE})")
    counts = f"{result.optimised_on} / {result.fitted_on} / {result.tested_on}"
    table.add_row("pictures: optimised / fitted / tested", counts)
    return table


def percent(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.1f}"


def number(value: float | None) -> str:
    """Two decimals."""
    return "–" if value is None else f"{value:.2f}"


def input_line(camera: InputCamera) -> str:
    """What is known of the input picture's elevation."""
    if float(camera.score) == 0:
        return "the input picture's elevation cannot be known from these keypoints"
    return (
        f"the input picture's elevation is {float(camera.elevation_deg):.1f}° ± {float(camera.elevation_std_deg):.1f}°"
    )
