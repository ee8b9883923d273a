"""The report of a run: one HTML page that needs no server, no network and no other file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyorbit.detection.found import Detection
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.choices import CACHE_INDEX
from keyorbit.objects.background import CUT_OUTS
from keyorbit.objects.dataset import Objects, ObjectViews, load_dataset
from keyorbit.objects.paths import mask_files, object_paths
from keyorbit.objects.shards.places import is_elsewhere
from keyorbit.output.loss_log import read_losses
from keyorbit.output.page.charts import charts
from keyorbit.output.page.inputs import RunFacts, check_run_folder, read_facts
from keyorbit.output.page.panels import make_panel, page_asset, render
from keyorbit.output.write import find_skeleton


@dataclass(frozen=True)
class Run:
    """The result of ``keyorbit discover`` in a folder.

    Attributes:
        folder: the folder.
        tokens: the tokens.
        about: from run.json.
        losses: terms of every logged step.
    """

    folder: Path
    tokens: Tokens
    about: RunFacts
    losses: list[dict[str, float]]


@dataclass(frozen=True)
class Figure:
    """One figure against ground truth.

    Attributes:
        words: label with unit.
        discovered: value for the discovered tokens.
        untrained: value for random tokens; None if it was not measured.
        less_is_better: direction.
    """

    words: str
    discovered: str
    untrained: str | None
    less_is_better: bool


def read_run(folder: Path) -> Run:
    """Read the run in a folder.

    Raises:
        InputError: there is none, or it is not finished or damaged.
    """
    check_run_folder(folder)
    tokens = Tokens.load(folder / "tokens.safetensors")
    return Run(folder, tokens, read_facts(folder), read_losses(folder))


def run_objects(run: Run, data: Sequence[Path], count: int) -> Objects:
    """Return the first ``count`` objects at the paths of ``data``, or else of the run's own data, if it is still there.

    The run's own pictures are cut out as they were for the run; a cache keeps none.

    Raises:
        InputError: one of them holds no objects.
    """
    found: list[ObjectViews] = []
    if data:
        for path in data:
            found += load_dataset(path)[: count - len(found)]
        return found
    own, cut_outs = [_there(name) for name in run.about.places], run.folder / CUT_OUTS
    there = [path for path in own if path is not None and not (path / CACHE_INDEX).is_file()]
    if len(there) < len(own):
        return []
    masks: dict[Path, Path] = {}
    files = [path for path in there if not is_elsewhere(path)]
    if files and any(cut_outs.glob("*.png")):
        masks = mask_files(cut_outs, [place for path in files for place in object_paths(path)])
    for path in there:  # pictures in shards are cut out once more
        found += load_dataset(path, "keep" if path in files else "auto", masks)[: count - len(found)]
    return found


def _there(name: str) -> Path | None:
    """Return the path by a name that a file gives, if something is there."""
    try:
        return Path(name) if name and Path(name).exists() else None
    except (OSError, ValueError):  # no file can have that name
        return None


def report_html(
    run: Run, detections: Sequence[Detection], objects: Objects, figures: Sequence[Figure] = (), scored: int = 0
) -> str:
    """Render the page, with the detections of ``objects``, the surest first; ``scored`` objects gave the figures."""
    skeleton = find_skeleton(detections) if len(detections) > 1 else []
    pairs = sorted(zip(detections, objects, strict=True), key=lambda pair: -_known(pair[0]))
    panels = [make_panel(detection, thing.truth, skeleton) for detection, thing in pairs]
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


def _known(detection: Detection) -> float:
    return 0.0 if detection.confidence is None else detection.confidence.known


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, str(value)))
    return rows
