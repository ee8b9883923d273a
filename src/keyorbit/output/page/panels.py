"""The panel of one object in a page: its pictures with keypoints, heatmaps, and a 3D scene. Report and app share it."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from markupsafe import Markup
from numpy import ndarray
from PIL import Image
from torch import Tensor

from keyorbit.detection.found import Detection
from keyorbit.objects.dataset import Truth
from keyorbit.objects.pictures import square, to_uint8
from keyorbit.output.choices import Edge
from keyorbit.output.crowding import NameSpot, Spot, spread_labels, spread_names
from keyorbit.output.meshes import frustum
from keyorbit.output.page.arrangement import Place, rings
from keyorbit.output.page.solid import solid
from keyorbit.output.palette import FAINT, ink, keypoint_name, palette
from keyorbit.output.plotting import HEAT

if TYPE_CHECKING:
    import jinja2

# Share of the first camera's distance at which a view hangs in front of its camera.
_FRUSTUM_DEPTH = 0.42
_LARGEST_PNG = 160
# In percent of a picture: radius of a disc with a number, of a point, and how far a disc may stand from its point.
_DISC, _DOT, _DISTANCES = 3.7, 1.2, (0.0, 7.0, 10.0, 13.5, 17.0)
# Height of a name, and the width of one of its letters, by the font size of the style.
_LINE, _LETTER = 6.0, 3.5


@dataclass(frozen=True)
class Mark:
    """A keypoint on a picture.

    Attributes:
        index: number of the keypoint.
        x: in percent of the picture's width.
        y: in percent of its height.
        score: 0…1.
        name: its own, or its number's.
        hollow: whether it is drawn as an empty ring, since it means nothing.
        label: where the disc with its number stands, from the keypoint, in percent; None where it is shown only when
            the keypoint is chosen, because it is faint or nothing is free.
        called: where its name is written, from the keypoint, in percent; None where it is not.
    """

    index: int
    x: float
    y: float
    score: float
    name: str
    hollow: bool = False
    label: Spot | None = (0.0, 0.0)
    called: NameSpot | None = None

    @property
    def faint(self) -> bool:
        """Whether it is drawn faint."""
        return self.score < FAINT or self.hollow


@dataclass(frozen=True)
class Tile:
    """A picture with its keypoints.

    Attributes:
        title: such as "view 3".
        source: the picture as a data URL.
        marks: the keypoints.
        landmarks: name and position, in percent, of the true landmarks that are visible.
        place: where it stands among the views; None for the input picture, and in a plain grid.
    """

    title: str
    source: str
    marks: tuple[Mark, ...]
    landmarks: tuple[tuple[str, float, float], ...] = ()
    place: Place | None = None


@dataclass(frozen=True)
class Row:
    """One keypoint in the table.

    Attributes:
        index: number of the keypoint.
        score: 0…1.
        error: reprojection error in percent of a view's side; None without 3D.
        strip: its heatmaps as a data URL.
        name: its own; empty without one.
        trust: how likely it is at its part, in words; empty where that is not known.
    """

    index: int
    score: float
    error: float | None
    strip: str
    name: str = ""
    trust: str = ""


@dataclass(frozen=True)
class Panel:
    """Everything that a page shows of one object.

    Attributes:
        name: of the object.
        tiles: its pictures.
        rows: its keypoints.
        pictures: small pictures side by side, as a data URL.
        scene: JSON for ``viewer.js``; None without 3D.
        facts: pairs of a label and a value.
        trust: how far to trust it, as a sentence, and the verdict that gives it its colour; None where not known.
    """

    name: str
    tiles: tuple[Tile, ...]
    rows: tuple[Row, ...]
    pictures: str
    scene: str | None
    facts: tuple[tuple[str, str], ...]
    trust: tuple[str, str] | None = None

    @property
    def named(self) -> bool:
        """Whether a keypoint has a name of its own."""
        return any(row.name for row in self.rows)

    @property
    def halves(self) -> int:
        """Columns of its pictures, in halves of a picture; 0 for a plain grid."""
        ends = [tile.place.half + 2 for tile in self.tiles if tile.place is not None]
        return max(ends) + self.first if ends else 0

    @property
    def first(self) -> int:
        """Columns, in halves, before the first ring: those of the input picture."""
        return 2 if self.tiles[0].place is None else 0


def make_panel(detection: Detection, truth: Truth | None = None, skeleton: Sequence[Edge] = ()) -> Panel:
    """Make the panel of one detection; with ``truth``, landmarks are shown too."""
    flat, points = detection.keypoints_2d, detection.keypoints_3d
    pictures = [to_uint8(view) for view in detection.views]
    titles, places, scores = [f"view {i}" for i in range(len(pictures))], [*flat.xy], [*flat.score]
    heat = detection.heatmaps
    if flat.input_xy is not None and flat.input_score is not None:
        titles, pictures = ["input", *titles], [square(detection.input_square), *pictures]
        places, scores = [flat.input_xy, *places], [flat.input_score, *scores]
        given = torch.zeros_like(heat[0]) if detection.input_heatmaps is None else detection.input_heatmaps
        heat = torch.cat([given[None].to(heat), heat])
    # The truth has the input picture first; a model of a single view looks at that one.
    first = 0 if titles[0] == "input" or len(titles) == 1 else 1
    seen = [()] * len(pictures) if truth is None else _landmarks(truth, first, len(pictures))
    ringed = None if flat.cameras is None or points is None else rings(flat.cameras)
    stand = [*([None] * len(pictures)), *(ringed or ())][-len(pictures) :]
    tiles = tuple(
        Tile(title, data_url(picture), _marks(xy, score, detection), landmarks, place)
        for title, picture, xy, score, landmarks, place in zip(
            titles, pictures, places, scores, seen, stand, strict=True
        )
    )
    rows = tuple(
        Row(
            k,
            float(flat.score[0, k] if points is None else points.score[k]),
            None if points is None else 100 * float(points.reprojection_error[k]),
            heat_strip(heat[:, k]),
            detection.names[k] if detection.names else "",
            _likely(detection, k),
        )
        for k in range(flat.xy.shape[1])
    )
    side = min(96, detection.views.shape[-1])
    small = [np.asarray(Image.fromarray(picture).resize((side, side))) for picture in pictures]
    scene = _scene(detection, truth, skeleton)
    return Panel(
        detection.name,
        tiles,
        rows,
        data_url(np.concatenate(small, 1)),
        None if scene is None else json.dumps(scene),
        _facts(detection, truth),
        None if detection.confidence is None else (detection.confidence.words, detection.confidence.verdict),
    )


def data_url(picture: UInt8[ndarray, "height width 3"]) -> str:
    """Encode a picture as a data URL: PNG if it is small, else JPEG."""
    kind = "png" if picture.shape[0] <= _LARGEST_PNG else "jpeg"
    return _encode(Image.fromarray(picture), kind, **({"optimize": True} if kind == "png" else {"quality": 88}))


def environment() -> "jinja2.Environment":
    """Return the templates of the package, with HTML escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("keyorbit.output", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    pages.globals |= {"palette": palette, "ink": ink, "keypoint_name": keypoint_name, "name_spots": name_spots}
    return pages


def render(template: str, **values: Any) -> str:
    """Fill a template of the package."""
    return environment().get_template(template).render(**values)


def page_asset(name: str) -> Markup:
    """Return a style sheet or script of the package, to be put into a page unchanged."""
    return Markup(files("keyorbit.output.page").joinpath(name).read_text(encoding="utf-8"))


def render_panel(panel: Panel) -> str:
    """Render one object's panel as HTML, for a page that has ``style.css``, ``viewer.js`` and ``page.js``."""
    return render("one_panel.html", panel=panel)


def panel_page(panel: Panel) -> str:
    """Render one object's panel as a page to be kept or sent: one file that asks the network for nothing."""
    scripts = {"viewer": page_asset("viewer.js"), "page": page_asset("page.js")}
    return render("result.html", panel=panel, version=version("keyorbit"), style=page_asset("style.css"), **scripts)


def _encode(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _marks(
    xy: Float[Tensor, "keypoint 2"], score: Float[Tensor, " keypoint"], detection: Detection
) -> tuple[Mark, ...]:
    values, names, hollow = (100 * xy).tolist(), detection.names, not detection.trusted
    marks = [
        Mark(k, round(x, 2), round(y, 2), round(value, 3), keypoint_name(k, names), hollow)
        for k, ((x, y), value) in enumerate(zip(values, score.tolist(), strict=True))
    ]
    # The surest first, so that they stand where they are.
    shown = sorted((mark for mark in marks if not mark.faint), key=lambda mark: -mark.score)
    spots = spread_labels([(mark.x, mark.y) for mark in shown], _DISC, _DISTANCES, 100.0, _DOT)
    labels: dict[int, Spot | None] = {
        mark.index: None if spot is None else (round(spot[0] - mark.x, 2), round(spot[1] - mark.y, 2))
        for mark, spot in zip(shown, spots, strict=True)
    }
    order = [*shown, *(mark for mark in marks if mark.faint)]
    points = [(mark.x, mark.y) for mark in order]
    places = [spot or point for spot, point in zip([*spots, *[None] * (len(order) - len(spots))], points, strict=True)]
    discs = [spot for spot in spots if spot is not None]
    written = name_spots([mark.name for mark in order], points, places, discs)
    called = {mark.index: spot for mark, spot in zip(order, written, strict=True)}
    return tuple(replace(mark, label=labels.get(mark.index), called=called[mark.index]) for mark in marks)


def name_spots(
    names: Sequence[str], points: Sequence[Spot], places: Sequence[Spot] | None = None, discs: Sequence[Spot] = ()
) -> list[NameSpot]:
    """Choose where the names of points are written, from each point, in percent of a picture.

    ``places``: of their numbers; default None: at the points. ``discs``: those of all; default none.
    """
    lengths = [round(_LETTER * len(name), 1) for name in names]
    spots = spread_names(places or points, lengths, discs, _DISC, _LINE, 100.0)
    return [
        replace(spot, x=round(spot.x - x, 2), y=round(spot.y - y, 2))
        for spot, (x, y) in zip(spots, points, strict=True)
    ]


def _likely(detection: Detection, k: int) -> str:
    """How likely a keypoint is at its part, in words."""
    if detection.confidence is None or not detection.trusted:
        return ""
    chance = float(detection.confidence.keypoints[k])
    words = (
        "very likely" if chance >= 0.9 else "likely" if chance >= 0.7 else "perhaps" if chance >= 0.4 else "unlikely"
    )
    return f"{words} ({chance:.0%})"


def _landmarks(truth: Truth, first: int, pictures: int) -> list[tuple[tuple[str, float, float], ...]]:
    shown = []
    chosen = slice(first, first + pictures)
    for xy, visible in zip(truth.keypoints_2d[chosen], truth.visible[chosen], strict=True):
        kept = (visible & truth.known).tolist()
        named = zip(truth.names, (100 * xy).tolist(), kept, strict=True)
        shown.append(tuple((name, round(x, 2), round(y, 2)) for name, (x, y), has in named if has))
    return shown + [()] * (pictures - len(shown))  # views that nobody annotated


def heat_strip(heatmaps: Float[Tensor, "picture height width"]) -> str:
    """Draw heatmaps side by side, each scaled to its maximum; low values are transparent."""
    from matplotlib import colormaps

    values = heatmaps.detach().float().cpu().numpy()
    values = values / np.maximum(values.max((1, 2), keepdims=True), 1e-12)
    image = Image.fromarray((np.concatenate(list(values), 1) * 255).round().astype(np.uint8)).convert("P")
    colors = (colormaps[HEAT](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    image.putpalette(colors.tobytes())
    alpha = (255 * np.linspace(0, 1, 256) ** 0.6).astype(np.uint8)
    return _encode(image, "png", transparency=alpha.tobytes(), optimize=True)


def _scene(detection: Detection, truth: Truth | None, skeleton: Sequence[Edge]) -> dict[str, Any] | None:
    """Points, edges, cameras and landmarks for ``viewer.js``; None where there is no 3D."""
    points, cameras = detection.keypoints_3d, detection.keypoints_2d.cameras
    if points is None or cameras is None:
        return None
    colors = palette(len(points.score))
    named = [
        {
            "k": k,
            "name": keypoint_name(k, detection.names),
            "color": color,
            "ink": ink(color),
            "xyz": _round(points.xyz[k].tolist()),
        }
        | {"score": round(float(points.score[k]), 3), "faint": float(points.score[k]) < FAINT or not detection.trusted}
        for k, color in enumerate(colors)
    ]
    first = 0 if detection.keypoints_2d.input_xy is None else 1
    views = [(f"view {i}", cameras, i, first + i) for i in range(len(cameras))]
    given = detection.input_camera
    if first and given is not None and float(given.score) > 0:
        views.insert(0, ("input", given.cameras, 0, 0))
    frusta = []
    for name, camera, i, tile in views:
        tip, rim = frustum(camera, i, _FRUSTUM_DEPTH * float(cameras.centers[0].norm()))
        frusta.append({"name": name, "tile": tile, "tip": _round(tip), "rim": _round(rim)})
    landmarks = []
    if truth is not None and truth.keypoints_3d is not None:
        pairs = zip(truth.names, truth.keypoints_3d, truth.known.tolist(), strict=True)
        landmarks = [{"name": name, "xyz": _round(xyz.tolist())} for name, xyz, known in pairs if known]
    return {
        "points": named,
        "edges": [list(e) for e in skeleton],
        "frusta": frusta,
        "landmarks": landmarks,
        "solid": solid(detection.views, detection.masks, cameras),
    }


def _facts(detection: Detection, truth: Truth | None) -> tuple[tuple[str, str], ...]:
    points, camera = detection.keypoints_3d, detection.input_camera
    score = detection.keypoints_2d.score[0] if points is None else points.score
    facts = [("keypoints with a score", f"{int((score > FAINT).sum())} of {len(score)}")]
    if detection.kinds:
        kind, known = detection.kinds[0]
        others = ", ".join(name for name, _ in detection.kinds[1:])
        facts.insert(0, ("kind", f"{kind} ({known:.0%} sure), not {others}"))
    if not detection.trusted:
        facts = [("keypoints", "not to be trusted")]
    elif points is not None:
        error = 100 * float(points.reprojection_error.median())
        facts.append(("reprojection error, median", f"{error:.1f} % of a view's side"))
        if truth is not None and truth.keypoints_3d is not None and truth.known.any():
            away = torch.cdist(truth.keypoints_3d[truth.known].to(points.xyz), points.xyz).min(1).values
            facts.append(("landmark to nearest keypoint, mean", f"{100 * float(away.mean()):.1f} % of the size"))
    if camera is not None and float(camera.score) > 0:
        angle, spread = float(camera.elevation_deg), float(camera.elevation_std_deg)
        facts.append(("elevation of the input picture", f"{angle:.0f}° ± {spread:.0f}°"))
    if detection.framing is not None and detection.framing.recentred:
        facts.append(("input picture", detection.framing.words))
    return tuple(facts)


def _round(values: Any) -> Any:
    return np.round(np.asarray(values, float), 4).tolist()
