"""All figures that `keyorbit evaluate` reports, under names that are unambiguous across papers.

Metrics in the literature share names and differ in formulas. Where two have one name, the key here begins with the
source of the metric. The formulas are in `keyorbit.metrics`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation import metrics

# World units are sizes of the object: the sphere about it has the diameter 1.
NEAR = 0.1
FLOATING = 0.05
# An object that is turned by more is turned the wrong way.
WRONG_TURN_DEG = 45
_MIN_POSE_POINTS = 3


@dataclass(frozen=True, eq=False)
class InSpace:
    """Keypoints and landmarks in space, and the landmarks that the keypoints predict; world units."""

    points: Float[Tensor, "item keypoint 3"]
    landmarks: Float[Tensor, "item landmark 3"]
    known: Bool[Tensor, "item landmark"]
    predicted: Float[Tensor, "item landmark 3"]


@dataclass(frozen=True, eq=False)
class OnSurface:
    """Keypoints in space, the objects' surfaces, and the distance along it from each landmark to each of its points."""

    points: Float[Tensor, "item keypoint 3"]
    surface: Float[Tensor, "item point 3"]
    landmarks: Float[Tensor, "item landmark 3"]
    known: Bool[Tensor, "item landmark"]
    geodesic: Float[Tensor, "item landmark point"]


@dataclass(frozen=True, eq=False)
class OnMesh:
    """Distances along the surfaces of meshes, infinite beyond the largest threshold.

    Attributes:
        keypoints: from each keypoint to each landmark.
        predicted: from each landmark to where it is predicted.
        known: whether there is such a landmark.
        counted: whether the keypoint was found.
        confidence: of each keypoint: how likely it is at its part, or its score where that is not known.
    """

    keypoints: Float[Tensor, "item keypoint landmark"]
    predicted: Float[Tensor, "item landmark"]
    known: Bool[Tensor, "item landmark"]
    counted: Bool[Tensor, "item keypoint"]
    confidence: Float[Tensor, "item keypoint"]


@dataclass(frozen=True, eq=False)
class InPictures:
    """Predicted and true landmarks in pictures, which of them are seen, and the objects' boxes: width and height.

    All in sides of the picture.
    """

    predicted: Float[Tensor, "item landmark 2"]
    truth: Float[Tensor, "item landmark 2"]
    seen: Bool[Tensor, "item landmark"]
    boxes: Float[Tensor, "item 2"]

    @classmethod
    def joined(cls, parts: Sequence["InPictures"]) -> "InPictures":
        """Return the items of all."""
        return cls(
            torch.cat([part.predicted for part in parts]),
            torch.cat([part.truth for part in parts]),
            torch.cat([part.seen for part in parts]),
            torch.cat([part.boxes for part in parts]),
        )

    @property
    def size(self) -> Float[Tensor, " item"]:
        """Root of the box's area."""
        return self.boxes.prod(-1).sqrt()

    @property
    def usable(self) -> Bool[Tensor, "item landmark"]:
        """Landmarks that are seen, on objects whose box is not empty."""
        return self.seen & (self.size > 0)[:, None]


@dataclass(frozen=True, eq=False)
class InPlane:
    """Keypoints and landmarks in pictures, for models without 3D. ``regressed``: landmarks by linear regression."""

    points: Float[Tensor, "item keypoint 2"]
    landmarks: Float[Tensor, "item landmark 2"]
    known: Bool[Tensor, "item landmark"]
    regressed: Float[Tensor, "item landmark 2"]


@dataclass(frozen=True, eq=False)
class Moved:
    """Keypoints of objects, those of the same objects after a motion, and the motion; see :func:`motion_of`."""

    points: Float[Tensor, "item keypoint 3"]
    moved: Float[Tensor, "item keypoint 3"]
    motion: Float[Tensor, "item 4 4"]


@dataclass(frozen=True, eq=False)
class Reprojected:
    """Keypoints of one object in space, their positions in its views, and the size of the views in pixels."""

    points: Float[Tensor, "keypoint 3"]
    xy: Float[Tensor, "view keypoint 2"]
    cameras: Any
    height: int
    width: int


@dataclass(frozen=True)
class Measure:
    """Name and source of a figure.

    Attributes:
        label: in tables.
        unit: "%" is a share, shown in percent.
        better: direction.
        source: paper that defines it.
        in_table: whether the short table of the command shows it. Default False.
    """

    label: str
    unit: Literal["%", "px", "°", "0…1"]
    better: Literal["less", "more"]
    source: str
    of: Mapping[type, Callable[[Any], Tensor]]
    shown: bool = False


def _median_pose_error(seen: InSpace) -> Tensor:
    return _pose_errors(seen.points, seen.landmarks, seen.known).median()


def _mean_pose_error(seen: InSpace) -> Tensor:
    return _pose_errors(seen.points, seen.landmarks, seen.known).mean()


def _wrong_turns(seen: InSpace) -> Tensor:
    angles = metrics.vertical_turn(seen.predicted, seen.landmarks, seen.known)
    return (angles[angles.isfinite()].abs() > WRONG_TURN_DEG).to(angles.dtype).mean()


def _went(seen: Moved) -> Tensor:
    """Move the keypoints of the objects by the motion."""
    return seen.points @ seen.motion[:, :3, :3].mT + seen.motion[:, None, :3, 3]


def _das(seen: InSpace | InPlane) -> Tensor:
    return metrics.dual_alignment_score(seen.points, seen.landmarks, seen.known)


def _hungarian_iou(seen: InSpace | InPlane) -> Tensor:
    return metrics.hungarian_iou(seen.points, seen.landmarks, NEAR, seen.known)


def _coverage(seen: InSpace | InPlane) -> Tensor:
    return metrics.coverage(seen.points, seen.landmarks, NEAR, seen.known)


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "reprojection_px": Measure(
            "reprojection error (mean)",
            "px",
            "less",
            "Hartley & Zisserman 2004",
            {Reprojected: lambda s: metrics.mean_reprojection_px(s.points, s.xy, s.cameras, s.height, s.width)},
        ),
        "reprojection_share": Measure(
            "reprojection error, of view side (mean)",
            "%",
            "less",
            "Hartley & Zisserman 2004",
            {Reprojected: lambda s: metrics.mean_reprojection(s.points, s.xy, s.cameras)},
            shown=True,
        ),
        "mpjpe": Measure(
            "MPJPE of landmarks, of object size",
            "%",
            "less",
            "Ionescu et al. 2014",
            {InSpace: lambda s: metrics.mpjpe(s.predicted, s.landmarks, s.known)},
        ),
        f"wrong_turns_{WRONG_TURN_DEG}": Measure(
            f"objects turned wrong (> {WRONG_TURN_DEG}° about the vertical)",
            "%",
            "less",
            "this project",
            {InSpace: _wrong_turns},
            shown=True,
        ),
        "n_mpjpe": Measure(
            "N-MPJPE, scale aligned",
            "%",
            "less",
            "Rhodin et al. 2018",
            {InSpace: lambda s: metrics.n_mpjpe(s.predicted, s.landmarks, s.known)},
        ),
        "p_mpjpe": Measure(
            "P-MPJPE, similarity aligned",
            "%",
            "less",
            "Umeyama 1991",
            {InSpace: lambda s: metrics.pa_mpjpe(s.predicted, s.landmarks, s.known)},
        ),
        f"pck3d_{NEAR}": Measure(
            f"3D PCK at {NEAR} object sizes",
            "%",
            "more",
            "Yang & Ramanan 2013",
            {InSpace: lambda s: metrics.pck(s.predicted, s.landmarks, NEAR, s.known)},
            shown=True,
        ),
        f"spair_pck_per_image_{NEAR}": Measure(
            f"PCK@{NEAR} of the box, per image",
            "%",
            "more",
            "Min et al. 2019, SPair-71k",
            {InPictures: lambda s: metrics.pck_per_image(s.predicted, s.truth, s.boxes, NEAR, s.usable)},
        ),
        f"spair_pck_per_point_{NEAR}": Measure(
            f"PCK@{NEAR} of the box, per point",
            "%",
            "more",
            "Min et al. 2019, SPair-71k",
            {InPictures: lambda s: metrics.pck_per_point(s.predicted, s.truth, s.boxes, NEAR, s.usable)},
            shown=True,
        ),
        "nme_box": Measure(
            "NME, of √(box area)",
            "%",
            "less",
            "Sagonas et al. 2013; Bulat & Tzimiropoulos 2017",
            {InPictures: lambda s: metrics.normalised_mean_error(s.predicted, s.truth, s.size, s.usable)},
        ),
        "thewlis_regression_2d": Measure(
            "linear landmark regression, of view side",
            "%",
            "less",
            "Thewlis et al. 2017; Hedlin et al. 2024 (CUB)",
            {InPlane: lambda s: metrics.visible_error(s.regressed, s.landmarks, s.known)},
        ),
        "skeleton_merger_das": Measure(
            "DAS (Skeleton Merger, with landmarks)", "0…1", "more", "Shi et al. 2021", {InSpace: _das, InPlane: _das}
        ),
        "sc3k_correspondence": Measure(
            "correspondence (SC3K, without landmarks)",
            "0…1",
            "more",
            "Zohaib & Del Bue 2023",
            {InSpace: lambda s: metrics.label_free_correspondence(_in_one_frame(s.points, s.landmarks, s.known))},
        ),
        f"keypointnet_geodesic_iou_{NEAR}": Measure(
            "IoU along the surface (KeypointNet)",
            "%",
            "more",
            "You et al. 2020",
            {OnSurface: lambda s: metrics.geodesic_iou(s.points, s.surface, s.geodesic, NEAR, s.known)},
        ),
        f"keypointnet_mesh_iou_{NEAR}": Measure(
            f"IoU at {NEAR} along the mesh (KeypointNet)",
            "%",
            "more",
            "You et al. 2020",
            {OnMesh: lambda s: metrics.keypointnet_iou(s.keypoints, NEAR, s.known, s.counted)},
            shown=True,
        ),
        f"keypointnet_mesh_pck_{NEAR}": Measure(
            f"PCK at {NEAR} along the mesh (KeypointNet)",
            "%",
            "more",
            "You et al. 2020",
            {OnMesh: lambda s: metrics.keypointnet_pck(s.predicted, NEAR, s.known)},
            shown=True,
        ),
        f"keypointnet_mesh_map_{NEAR}": Measure(
            f"mAP at {NEAR} along the mesh (KeypointNet)",
            "%",
            "more",
            "You et al. 2020",
            {OnMesh: lambda s: metrics.keypointnet_map(s.keypoints, s.confidence, NEAR, s.known, s.counted)},
            shown=True,
        ),
        f"skeleton_merger_snapped_iou_{NEAR}": Measure(
            "IoU after snapping (Skeleton Merger)",
            "%",
            "more",
            "Shi et al. 2021",
            {OnSurface: lambda s: metrics.snapped_iou(s.points, s.surface, s.landmarks, NEAR, s.known)},
        ),
        f"keypointdetr_hungarian_iou_{NEAR}": Measure(
            "IoU of pairs (KeypointDETR)",
            "%",
            "more",
            "Jin et al. 2024",
            {InSpace: _hungarian_iou, InPlane: _hungarian_iou},
        ),
        f"landmark_coverage_{NEAR}": Measure(
            f"landmarks with a keypoint within {NEAR}",
            "%",
            "more",
            "this project",
            {InSpace: _coverage, InPlane: _coverage},
        ),
        "sc3k_extent_coverage": Measure(
            "coverage of the extent (SC3K)",
            "%",
            "more",
            "Zohaib & Del Bue 2023",
            {OnSurface: lambda s: metrics.extent_coverage(s.points, s.surface)},
        ),
        f"sc3k_inclusivity_{FLOATING}": Measure(
            "inclusivity (SC3K)",
            "%",
            "more",
            "Zohaib & Del Bue 2023",
            {OnSurface: lambda s: metrics.inclusivity(s.points, s.surface, FLOATING)},
            shown=True,
        ),
        "relative_pose_error_median": Measure(
            "relative pose error (median)",
            "°",
            "less",
            "Zohaib & Del Bue 2023",
            {InSpace: _median_pose_error},
            shown=True,
        ),
        "relative_pose_error_mean": Measure(
            "relative pose error (mean)",
            "°",
            "less",
            "Zohaib & Del Bue 2023",
            {InSpace: _mean_pose_error},
            shown=True,
        ),
        f"same_index_repeatability_{NEAR}": Measure(
            f"repeatability, same keypoint within {NEAR}",
            "%",
            "more",
            "Yang & Ramanan 2013 (PCK)",
            {Moved: lambda s: metrics.pck(s.moved, _went(s), NEAR)},
            shown=True,
        ),
        f"distinct_repeatability_{NEAR}": Measure(
            f"repeatability, same keypoint within {NEAR}, none nearer",
            "%",
            "more",
            "this project",
            {Moved: lambda s: metrics.distinct_repeatability(s.points, s.moved, s.motion, NEAR)},
            shown=True,
        ),
        f"usip_repeatability_{NEAR}": Measure(
            f"repeatability, any keypoint within {NEAR} (USIP)",
            "%",
            "more",
            "Li & Lee 2019",
            {Moved: lambda s: metrics.repeatability(s.points, s.moved, s.motion, NEAR)},
            shown=True,
        ),
    }
)

Seen = InSpace | OnSurface | OnMesh | InPictures | InPlane | Moved | Reprojected


def measured(seen: Seen) -> dict[str, float | None]:
    """Compute all metrics of this kind of input, by name; None where a metric has nothing to average."""
    return {
        name: _number(measure.of[type(seen)], seen) for name, measure in MEASURES.items() if type(seen) in measure.of
    }


def motion_of(
    landmarks: Float[Tensor, "item landmark 3"],
    moved: Float[Tensor, "item landmark 3"],
    known: Bool[Tensor, "item landmark"],
) -> Float[Tensor, "item 4 4"]:
    """Compute the rigid motion that brings each object's landmarks nearest to those of the moved object."""
    rotation = metrics.best_rotation(landmarks, moved, known)
    motion = torch.eye(4).to(landmarks).repeat(len(landmarks), 1, 1)
    motion[:, :3, :3] = rotation
    shift = _middle(moved, known) - (rotation @ _middle(landmarks, known)[..., None])[..., 0]
    motion[:, :3, 3] = shift
    return motion


def _pose_errors(points: Tensor, landmarks: Tensor, known: Tensor) -> Float[Tensor, " pair"]:
    """Compute the pose error of each object and the next, against the rotation between their common landmarks."""
    common = known[:-1] & known[1:]
    told = common.sum(-1) >= _MIN_POSE_POINTS
    rotation = metrics.best_rotation(landmarks[:-1], landmarks[1:], common)
    angles = metrics.relative_pose_error(points[:-1], points[1:], rotation)
    return angles[told & angles.isfinite()]


def _in_one_frame(points: Tensor, landmarks: Tensor, known: Tensor) -> Tensor:
    """Move each object's keypoints by the rigid motion that brings its landmarks nearest to the first object's."""
    reference = landmarks[:1].expand_as(landmarks)
    motion = motion_of(landmarks, reference, known & known[:1])
    return points @ motion[:, :3, :3].mT + motion[:, None, :3, 3]


def _middle(landmarks: Tensor, known: Tensor) -> Tensor:
    total = landmarks.masked_fill(~known[..., None], 0).sum(-2)
    return total / known.sum(-1, keepdim=True).clamp_min(1)


def _number(metric: Callable[[Any], Tensor], seen: Seen) -> float | None:
    """Return the metric's value, or None where it has nothing to average."""
    try:
        value = float(metric(seen))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
