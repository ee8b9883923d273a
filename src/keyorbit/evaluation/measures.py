"""All figures that `keyorbit evaluate` reports, under names that are unambiguous across papers.

Metrics in the literature share names and differ in formulas. Where two have one name, the key here begins with the
source of the metric. The formulas are in `keyorbit.metrics`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.evaluation import metrics

# World units are sizes of the object: the sphere about it has the diameter 1.
NEAR = 0.1
FLOATING = 0.05
_MIN_POSE_POINTS = 3


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
    in_table: bool = False


MEASURES: dict[str, Measure] = {
    "reprojection_px": Measure("reprojection error (mean)", "px", "less", "Hartley & Zisserman 2004"),
    "reprojection_share": Measure("reprojection error, of view side (mean)", "%", "less", "Hartley & Zisserman 2004"),
    "mpjpe": Measure("MPJPE of landmarks, of object size", "%", "less", "Ionescu et al. 2014", True),
    "n_mpjpe": Measure("N-MPJPE, scale aligned", "%", "less", "Rhodin et al. 2018"),
    "p_mpjpe": Measure("P-MPJPE, similarity aligned", "%", "less", "Umeyama 1991"),
    "pck3d_0.1": Measure("3D PCK at 0.1 object sizes", "%", "more", "Yang & Ramanan 2013", True),
    "spair_pck_per_image_0.1": Measure("PCK@0.1 of the box, per image", "%", "more", "Min et al. 2019, SPair-71k"),
    "spair_pck_per_point_0.1": Measure(
        "PCK@0.1 of the box, per point", "%", "more", "Min et al. 2019, SPair-71k", True
    ),
    "nme_box": Measure("NME, of √(box area)", "%", "less", "Sagonas et al. 2013; Bulat & Tzimiropoulos 2017"),
    "thewlis_regression_2d": Measure(
        "linear landmark regression, of view side", "%", "less", "Thewlis et al. 2017; Hedlin et al. 2024 (CUB)"
    ),
    "skeleton_merger_das": Measure("DAS (Skeleton Merger, asks landmarks)", "0…1", "more", "Shi et al. 2021"),
    "sc3k_correspondence": Measure("correspondence (SC3K, asks no landmark)", "0…1", "more", "Zohaib & Del Bue 2023"),
    "keypointnet_geodesic_iou_0.1": Measure("IoU along the surface (KeypointNet)", "%", "more", "You et al. 2020"),
    "skeleton_merger_snapped_iou_0.1": Measure("IoU after snapping (Skeleton Merger)", "%", "more", "Shi et al. 2021"),
    "keypointdetr_hungarian_iou_0.1": Measure("IoU of pairs (KeypointDETR)", "%", "more", "Jin et al. 2024"),
    "landmark_coverage_0.1": Measure("landmarks with a keypoint within 0.1", "%", "more", "this project"),
    "sc3k_extent_coverage": Measure("coverage of the extent (SC3K)", "%", "more", "Zohaib & Del Bue 2023"),
    "sc3k_inclusivity_0.05": Measure("inclusivity (SC3K)", "%", "more", "Zohaib & Del Bue 2023", True),
    "relative_pose_error_median": Measure("relative pose error (median)", "°", "less", "Zohaib & Del Bue 2023", True),
    "relative_pose_error_mean": Measure("relative pose error (mean)", "°", "less", "Zohaib & Del Bue 2023"),
    "usip_repeatability_0.1": Measure("repeatability under motion (USIP)", "%", "more", "Li & Lee 2019", True),
    "same_index_repeatability_0.1": Measure(
        "repeatability, equal numbers meet", "%", "more", "Yang & Ramanan 2013 (PCK)"
    ),
}


def space_measures(
    points: Float[Tensor, "item keypoint 3"],
    landmarks: Float[Tensor, "item landmark 3"],
    known: Bool[Tensor, "item landmark"],
    predicted: Float[Tensor, "item landmark 3"],
) -> dict[str, float | None]:
    """Compute figures from keypoints in space and landmarks; ``predicted`` are predicted from the keypoints."""
    angles = _pose_errors(points, landmarks, known)
    return {
        "mpjpe": _number(lambda: metrics.mpjpe(predicted, landmarks, known)),
        "n_mpjpe": _number(lambda: metrics.n_mpjpe(predicted, landmarks, known)),
        "p_mpjpe": _number(lambda: metrics.pa_mpjpe(predicted, landmarks, known)),
        f"pck3d_{NEAR}": _number(lambda: metrics.pck(predicted, landmarks, NEAR, known)),
        "skeleton_merger_das": _number(lambda: metrics.dual_alignment_score(points, landmarks, known)),
        "sc3k_correspondence": _number(
            lambda: metrics.label_free_correspondence(_in_one_frame(points, landmarks, known))
        ),
        f"keypointdetr_hungarian_iou_{NEAR}": _number(lambda: metrics.hungarian_iou(points, landmarks, NEAR, known)),
        f"landmark_coverage_{NEAR}": _number(lambda: metrics.coverage(points, landmarks, NEAR, known)),
        "relative_pose_error_median": float(angles.median()) if len(angles) else None,
        "relative_pose_error_mean": float(angles.mean()) if len(angles) else None,
    }


def surface_measures(
    points: Float[Tensor, "item keypoint 3"],
    surface: Float[Tensor, "item point 3"],
    landmarks: Float[Tensor, "item landmark 3"],
    known: Bool[Tensor, "item landmark"],
    geodesic: Float[Tensor, "item landmark point"],
) -> dict[str, float | None]:
    """Compute figures from keypoints in space and surfaces. ``geodesic``: distance of each landmark to each point."""
    return {
        f"keypointnet_geodesic_iou_{NEAR}": _number(
            lambda: metrics.geodesic_iou(points, surface, geodesic, NEAR, known)
        ),
        f"skeleton_merger_snapped_iou_{NEAR}": _number(
            lambda: metrics.snapped_iou(points, surface, landmarks, NEAR, known)
        ),
        "sc3k_extent_coverage": _number(lambda: metrics.extent_coverage(points, surface)),
        f"sc3k_inclusivity_{FLOATING}": _number(lambda: metrics.inclusivity(points, surface, FLOATING)),
    }


def picture_measures(
    predicted: Float[Tensor, "item landmark 2"],
    truth: Float[Tensor, "item landmark 2"],
    seen: Bool[Tensor, "item landmark"],
    boxes: Float[Tensor, "item 2"],
) -> dict[str, float | None]:
    """Compute figures of predicted landmarks in pictures. ``boxes``: width and height in sides of the picture."""
    size = boxes.prod(-1).sqrt()
    usable = seen & (size > 0)[:, None]
    return {
        f"spair_pck_per_image_{NEAR}": _number(lambda: metrics.pck_per_image(predicted, truth, boxes, NEAR, usable)),
        f"spair_pck_per_point_{NEAR}": _number(lambda: metrics.pck_per_point(predicted, truth, boxes, NEAR, usable)),
        "nme_box": _number(lambda: metrics.normalised_mean_error(predicted, truth, size, usable)),
    }


def planar_measures(
    points: Float[Tensor, "item keypoint 2"],
    landmarks: Float[Tensor, "item landmark 2"],
    known: Bool[Tensor, "item landmark"],
) -> dict[str, float | None]:
    """Compute figures from keypoints and landmarks in pictures, for detections without 3D."""
    return {
        "skeleton_merger_das": _number(lambda: metrics.dual_alignment_score(points, landmarks, known)),
        f"keypointdetr_hungarian_iou_{NEAR}": _number(lambda: metrics.hungarian_iou(points, landmarks, NEAR, known)),
        f"landmark_coverage_{NEAR}": _number(lambda: metrics.coverage(points, landmarks, NEAR, known)),
    }


def motion_measures(
    points: Float[Tensor, "item keypoint 3"],
    moved: Float[Tensor, "item keypoint 3"],
    motion: Float[Tensor, "item 4 4"],
) -> dict[str, float | None]:
    """Compute how far the keypoints of the moved objects are from the moved keypoints of the objects."""
    went = points @ motion[:, :3, :3].mT + motion[:, None, :3, 3]
    return {
        f"usip_repeatability_{NEAR}": _number(lambda: metrics.repeatability(points, moved, motion, NEAR)),
        f"same_index_repeatability_{NEAR}": _number(lambda: metrics.pck(moved, went, NEAR)),
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


def _number(metric: Callable[[], Tensor]) -> float | None:
    """Return the metric's value, or None where it has nothing to average."""
    try:
        value = float(metric())
    except ValueError:
        return None
    return value if math.isfinite(value) else None
