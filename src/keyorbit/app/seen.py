"""What an annotator sees of one object: its pictures, and where each point is on them."""

import io
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from keyorbit.discovery.placing import PlacedMark, place_marks
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import SURFACE_SPACING, in_sight, silhouette_distance, surface_points
from keyorbit.objects.marks import Mark, names_of
from keyorbit.objects.pictures import square, to_uint8
from keyorbit.output.palette import FAINT, keypoint_name

if TYPE_CHECKING:
    from keyorbit.detection.found import Detection

XY = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Seen:
    """One object with what the model found on it. All tensors are on the CPU.

    Attributes:
        name: of the object.
        certainty: mean probability of its keypoints to be at their parts, 0…1; the mean score where it is not known.
        version: number of the tokens that it was read with.
        views: its views as PNG.
        picture: the square of the input picture as PNG; None where its camera is not known.
        masks: True on the object.
        cameras: of the views; None for a model of a single view.
        camera: of the input picture; None where it is not known.
        names: of the keypoints.
        xyz: in space; None for a model of a single view.
        xy: on every view.
        score: on every view, 0…1.
        generated: whether the model made the views. Default False.
    """

    name: str
    certainty: float
    version: int
    views: tuple[bytes, ...]
    picture: bytes | None
    masks: Bool[Tensor, "view height width"]
    cameras: Cameras | None
    camera: Cameras | None
    names: tuple[str, ...]
    xyz: Float[Tensor, "keypoint 3"] | None
    xy: Float[Tensor, "view keypoint 2"]
    score: Float[Tensor, "view keypoint"]
    generated: bool = False
    _placed: dict[tuple[Mark, ...], tuple[PlacedMark, ...]] = field(default_factory=dict)

    @cached_property
    def surface(self) -> Float[Tensor, "point 3"] | None:
        """Points on the visual hull; None for a model of a single view."""
        return None if self.cameras is None else surface_points(silhouette_distance(self.masks), self.cameras)

    @classmethod
    def of(cls, detection: "Detection", version: int, generated: bool = False) -> "Seen":
        """Keep what is shown of a detection; ``generated`` says that the model made the views."""
        flat, points, trust = detection.keypoints_2d, detection.keypoints_3d, detection.confidence
        known = detection.input_camera
        camera = known.cameras if points is not None and known is not None and float(known.score) > 0 else None
        sure = (flat.score.mean(0) if points is None else points.score) if trust is None else trust.keypoints
        cameras = None if points is None else flat.cameras
        return cls(
            detection.name,
            float(sure.mean()),
            version,
            tuple(_png(Image.fromarray(to_uint8(view))) for view in detection.views),
            None if camera is None else _png(Image.fromarray(square(detection.input_square))),
            detection.masks,
            cameras,
            camera,
            tuple(keypoint_name(k, detection.names) for k in range(flat.xy.shape[1])),
            None if points is None else points.xyz,
            flat.xy if points is None or cameras is None else cameras.project(points.xyz),
            flat.score if points is None else torch.minimum(flat.score, points.score),
            generated and cameras is not None,
        )

    def place(self, marks: Sequence[Mark]) -> tuple[PlacedMark, ...]:
        """Find where marks of this object are.

        Raises:
            InputError: as :func:`keyorbit.discovery.placing.place_marks`.
        """
        key = tuple(marks)
        if key not in self._placed:
            self._placed[key] = place_marks(marks, self.name, self.masks, self.cameras, self.camera, self.generated)
        return self._placed[key]


@dataclass(frozen=True)
class Point:
    """One point of an object, as it is shown and kept.

    Attributes:
        name: its name.
        xyz: in space; None for a model of a single view, and for a point without a place.
        xy: on every view; empty for a point without a place.
        clear: whether each view sees it, and is sure of it where the model found it.
        picture_xy: on the input picture; None where it is not known.
        marked: how somebody marked it, in words; empty where the model found it.
        absent: whether somebody said that the object has no such point.
        clicked: the views in which it was marked, None for the input picture.
    """

    name: str
    xyz: tuple[float, float, float] | None = None
    xy: tuple[XY, ...] = ()
    clear: tuple[bool, ...] = ()
    picture_xy: XY | None = None
    marked: str = ""
    absent: bool = False
    clicked: tuple[int | None, ...] = ()

    @property
    def kept(self) -> Mark | None:
        """The point as files keep it; None where it has no place."""
        if self.absent or not self.xy:
            return None
        if self.xyz is not None:
            return Mark(self.name, xyz=self.xyz)
        x, y = self.xy[0]
        return Mark(self.name, view=0, xy=(min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)))


def points_of(
    seen: Seen, names: Sequence[str], marks: Sequence[Mark], absent: Set[str], kept: Sequence[Mark] | None = None
) -> tuple[Point, ...]:
    """Return the points of an object, in the order of ``names``.

    Args:
        seen: the object.
        names: of all points.
        marks: of this object; one that cannot be placed, for its object changed since, does not count.
        absent: names of points that the object has not.
        kept: its points as they were confirmed. Default None: it is not, and points are where the model found them.
    """
    placed = {mark.name.casefold(): mark for mark in _placed(seen, marks)}
    found = {name.casefold(): k for k, name in enumerate(seen.names)}
    confirmed = {mark.name.casefold(): mark for mark in kept or ()}
    made = []
    for name in names:
        key = name.casefold()
        if name in absent:
            made.append(Point(name, absent=True))
        elif key in placed:
            clicked = tuple(mark.view for mark in marks if mark.name.casefold() == key and mark.xy is not None)
            made.append(_marked(placed[key], seen, clicked))
        elif key in confirmed:
            made.append(_confirmed(confirmed[key], seen))
        elif key in found and kept is None:
            made.append(_found(seen, found[key]))
        else:
            made.append(Point(name))
    return tuple(made)


def _placed(seen: Seen, marks: Sequence[Mark]) -> list[PlacedMark]:
    found = list[PlacedMark]()
    for name in names_of(marks):
        try:
            found += seen.place([mark for mark in marks if mark.name == name])
        except InputError:
            continue
    return found


def _marked(mark: PlacedMark, seen: Seen, clicked: tuple[int | None, ...]) -> Point:
    return Point(
        mark.name,
        mark.xyz,
        mark.xy,
        mark.seen,
        mark.picture_xy or _on_picture(seen, None if mark.xyz is None else torch.tensor([mark.xyz])),
        mark.words,
        clicked=clicked,
    )


def _found(seen: Seen, k: int) -> Point:
    xyz = None if seen.xyz is None else seen.xyz[k : k + 1]
    place = None if xyz is None else _triple(xyz[0])
    clear = tuple((seen.score[:, k] >= FAINT).tolist())
    xy = tuple((x, y) for x, y in seen.xy[:, k].tolist())
    return Point(seen.names[k], place, xy, clear, _on_picture(seen, xyz))


def _confirmed(mark: Mark, seen: Seen) -> Point:
    if mark.xyz is None or seen.cameras is None:
        views = len(seen.views)
        return Point(mark.name, None, (mark.xy or (0.5, 0.5),) * views, (True,) * views, marked="confirmed")
    xyz = torch.tensor([mark.xyz])
    xy = tuple((x, y) for x, y in seen.cameras.project(xyz)[:, 0].tolist())
    return Point(mark.name, mark.xyz, xy, visible(xyz, seen)[0], _on_picture(seen, xyz), "confirmed")


def visible(xyz: Float[Tensor, "point 3"], seen: Seen) -> list[tuple[bool, ...]]:
    """Return, for each point, which views have nothing of the visual hull before it."""
    if seen.cameras is None or seen.surface is None:
        return [(True,)] * len(xyz)
    each: list[list[bool]] = in_sight(xyz, seen.surface, seen.cameras, SURFACE_SPACING).T.tolist()
    return [tuple(views) for views in each]


def _on_picture(seen: Seen, xyz: Float[Tensor, "1 3"] | None) -> XY | None:
    if seen.camera is None or xyz is None:
        return None
    x, y = seen.camera.project(xyz)[0, 0].tolist()
    return x, y


def _triple(values: Float[Tensor, "3"]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()
