"""How results show themselves: as figures, and as HTML in a notebook."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from keyorbit.detection.found import Detection
from keyorbit.diffusion.recording import Recording
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objects.pictures import square, to_uint8
from keyorbit.output.palette import ink, palette
from keyorbit.output.plotting import draw_keypoints, draw_points, new_figure

if TYPE_CHECKING:
    import matplotlib.figure

_HEIGHT = 760


def figure_of(result: Any, **options: Any) -> "matplotlib.figure.Figure":
    """Draw a result.

    A detection: its pictures with numbered keypoints; options are those of
    :func:`keyorbit.output.plotting.draw_keypoints`. 2D keypoints: likewise, on the ``pictures`` of the views, each
    [height width 3] of bytes, or on grey. 3D keypoints: in space, with ``cameras`` and ``skeleton``. Tokens: their
    places on the common shape, or else how alike they are. An evaluation: the error of each object. A recording: the
    views that the model saw.

    Raises:
        InputError: there is no drawing of such a thing.
    """
    match result:
        case Detection():
            return _detection(result, **options)
        case Keypoints2D():
            grey = [np.full((64, 64, 3), 200, np.uint8)] * len(result.xy)
            titles = [f"view {i}" for i in range(len(result.xy))]
            return draw_keypoints(options.pop("pictures", grey), [*result.xy], [*result.score], titles, **options)
        case Keypoints3D():
            return draw_points(result, **options)
        case Tokens():
            return _tokens(result)
        case Recording():
            return _views(result)
    if hasattr(result, "measures") and hasattr(result, "objects"):
        return _evaluation(result)
    raise InputError(f"there is no drawing of {type(result).__name__}")


def html_of(result: Any) -> str:
    """Return what a notebook shows of a result: a detection as in the report, with points that one can turn."""
    if isinstance(result, Detection):
        return _page_of(result)
    if hasattr(result, "measures") and hasattr(result, "objects"):
        errors = [one.landmark_2d if one.landmark_3d is None else one.landmark_3d for one in result.objects]
        rows = zip((one.name for one in result.objects), map(_percent, errors), strict=True)
        table = "".join(f"<tr><td>{escape(name)}</td><td>{error}</td></tr>" for name, error in rows)
        head = "<tr><th>object</th><th>landmarks, %</th></tr>"
        return f"<p>{escape(repr(result))}</p><table>{head}{table}</table>"
    image = io.BytesIO()
    figure_of(result).savefig(image, format="png")
    encoded = base64.b64encode(image.getvalue()).decode()
    return f'<p>{escape(repr(result))}</p><img alt="{escape(repr(result))}" src="data:image/png;base64,{encoded}">'


def _page_of(detection: Detection) -> str:
    """Return the panel of the report in a frame of its own, so that its style and script touch nothing else."""
    from keyorbit.output.page.panels import make_panel, page_asset, render_panel

    script = "".join(f"<script>{page_asset(name)}</script>" for name in ("viewer.js", "page.js"))
    head = f"<!doctype html><meta charset='utf-8'><style>{page_asset('style.css')}</style>"
    page = f"{head}<body>{render_panel(make_panel(detection))}{script}</body>"
    title = escape(repr(detection))
    return f'<iframe title="{title}" width="100%" height="{_HEIGHT}" frameborder="0" srcdoc="{escape(page)}"></iframe>'


def _detection(detection: Detection, **options: Any) -> "matplotlib.figure.Figure":
    flat = detection.keypoints_2d
    pictures, titles = [to_uint8(view) for view in detection.views], [f"view {i}" for i in range(len(flat.xy))]
    places, scores = [*flat.xy], [*flat.score]
    if flat.input_xy is not None and flat.input_score is not None:
        pictures, titles = [square(detection.input_square), *pictures], ["input", *titles]
        places, scores = [flat.input_xy, *places], [flat.input_score, *scores]
    options.setdefault("hollow", not detection.trusted)
    options.setdefault("hidden", detection.withheld)
    if detection.confidence is not None:
        options.setdefault("heading", (detection.confidence.words, detection.confidence.color))
    return draw_keypoints(pictures, places, scores, titles, **options)


def _views(recording: Recording) -> "matplotlib.figure.Figure":
    figure, count = new_figure(2.0 * len(recording.views), 2.2), len(recording.views)
    for i, view in enumerate(recording.views):
        axes = figure.add_subplot(1, count, i + 1)
        axes.imshow(to_uint8(view))
        axes.set_axis_off()
        axes.set_title(f"view {i}", fontsize=10)
    return figure


def _tokens(tokens: Tokens) -> "matplotlib.figure.Figure":
    figure, count = new_figure(5.0, 5.0), len(tokens)
    if tokens.info.places:
        axes: Any = figure.add_subplot(projection="3d")
        for k, (place, color) in enumerate(zip(tokens.info.places[:count], palette(count), strict=True)):
            axes.plot(*np.array(place)[:, None], "o", ms=7, mfc=color, mec=ink(color))
            axes.text(*place, f"  {k}", fontsize=8)
        axes.set_aspect("equal")
        return figure
    rows = tokens.embedding.detach().cpu().numpy()
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    axes = figure.add_subplot()
    axes.imshow(unit @ unit.T, vmin=-1, vmax=1, cmap="cividis")
    axes.set(title="cosine of the tokens' angles", xlabel="token", ylabel="token")
    return figure


def _evaluation(result: Any) -> "matplotlib.figure.Figure":
    errors = [one.landmark_2d if one.landmark_3d is None else one.landmark_3d for one in result.objects]
    names = [one.name for one in result.objects]
    figure = new_figure(5.0, 0.8 + 0.28 * max(1, len(names)))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), [0 if error is None else 100 * error for error in errors], color=palette(5)[4])
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("mean error of the landmarks, %")
    return figure


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
