"""A run as one HTML page that needs nothing else: no server, no network, no other file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyorbit.detection.detector import Detection
from keyorbit.diffusion.tokens import Tokens
from keyorbit.objects.dataset import Objects, load_dataset
from keyorbit.output.loss_log import read_losses
from keyorbit.output.page.inputs import check_run_folder, read_json
from keyorbit.output.page.panels import make_panel, page_asset, render
from keyorbit.output.plotting import loss_terms, running_mean
from keyorbit.output.write import find_skeleton

# The terms of the objectives (discover_constellation.py, objective.py) in words; others are shown by their names.
TERMS = {
    "total": "what is minimised: the weighted sum of the others",
    "misplaced": "how unlikely the tokens make the places where they belong, nats; flat maps have 0",
    "unfit": "how badly the tokens fit their constellation, nats a token",
    "evidence": "how sure the views are of these places, nats a view",
    "geometric": "how far the views disagree about a place, squared sides",
    "spread": "how wide a heatmap is, squared sides",
    "separation": "tokens nearer to each other than the margin",
    "silhouette": "how far places lie off the object, sides",
    "on_object": "share of a heatmap that lies off the object",
    "sharpening": "difference to a round spot at the peak",
    "equivariance": "difference to the maps of warped pictures",
}
_WIDTH, _HEIGHT, _MOST_POINTS = 300.0, 96.0, 240


@dataclass(frozen=True)
class Run:
    """What ``keyorbit discover`` left in a folder."""

    folder: Path
    tokens: Tokens
    about: dict[str, Any]
    losses: list[dict[str, float]]


@dataclass(frozen=True)
class Chart:
    """One term over the steps: as measured and as a running mean, as points of an SVG polyline."""

    name: str
    words: str
    raw: str
    mean: str
    first: str
    last: str
    steps: int


@dataclass(frozen=True)
class Figure:
    """One figure against ground truth, for the discovered tokens and for untrained ones."""

    words: str
    discovered: str
    untrained: str | None
    less_is_better: bool


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        InputError: there is none, or it is not finished or damaged.
    """
    check_run_folder(folder)
    tokens = Tokens.load(folder / "tokens.safetensors")
    about = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    return Run(folder, tokens, about, read_losses(folder))


def run_objects(run: Run, data: Path | None, count: int) -> Objects:
    """The first ``count`` objects of ``data``, or of what the run learned from if that is still where it was.

    Raises:
        InputError: ``data`` holds nothing usable.
    """
    if data is None:
        data = Path(str(run.about.get("data", "")))
        if not run.about.get("data") or not data.exists():
            return []
    return load_dataset(data)[:count]


def report_html(
    run: Run, detections: Sequence[Detection], objects: Objects, figures: Sequence[Figure] = (), scored: int = 0
) -> str:
    """The page, with the detections of ``objects``, and figures that were measured on ``scored`` objects."""
    skeleton = find_skeleton(detections) if len(detections) > 1 else []
    panels = [make_panel(d, thing.truth, skeleton) for d, thing in zip(detections, objects, strict=True)]
    return render(
        "report.html",
        run=run,
        title=run.folder.resolve().name,
        info=run.tokens.info,
        count=len(run.tokens),
        panels=panels,
        figures=figures,
        scored=scored,
        charts=charts(run.losses),
        settings=_flat(run.tokens.info.settings),
        style=page_asset("style.css"),
        viewer=page_asset("viewer.js"),
        page=page_asset("page.js"),
    )


def charts(history: Sequence[dict[str, float]]) -> list[Chart]:
    """The losses over the steps, one chart a term."""
    made = []
    for term in loss_terms(history):
        steps, values = [entry["step"] for entry in history], [entry[term] for entry in history]
        mean = running_mean(values)
        low, high = min(mean), max(mean)
        reach = (high - low) or abs(high) or 1.0
        low, high = low - 0.08 * reach, high + 0.08 * reach
        lines = [_line(steps, line, low, high) for line in (values, mean)]
        first, last = _short(mean[0]), _short(mean[-1])
        made.append(Chart(term, TERMS.get(term, ""), lines[0], lines[1], first, last, int(steps[-1])))
    return made


def _line(steps: Sequence[float], values: Sequence[float], low: float, high: float) -> str:
    every = max(1, len(steps) // _MOST_POINTS)
    kept = sorted({*range(0, len(steps), every), len(steps) - 1})
    span = max(1.0, steps[-1] - steps[0])
    points = []
    for i in kept:
        share = min(1.0, max(0.0, (values[i] - low) / (high - low)))
        points.append(f"{_WIDTH * (steps[i] - steps[0]) / span:.1f},{_HEIGHT * (1 - share):.1f}")
    return " ".join(points)


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, str(value)))
    return rows


def _short(value: float) -> str:
    return f"{value:.3g}"
