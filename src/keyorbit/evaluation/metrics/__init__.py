"""Metrics of keypoints. Where the literature uses one name for two metrics, the docstrings distinguish them.

Lengths are in the unit of the given points: sides of the view for xy, world units for 3D.
"""

from keyorbit.evaluation.metrics.correspondence import (
    distinct_repeatability,
    dual_alignment_score,
    label_free_correspondence,
    repeatability,
)
from keyorbit.evaluation.metrics.iou import geodesic_iou, hungarian_iou, snapped_iou
from keyorbit.evaluation.metrics.keypointnet import keypointnet_iou, keypointnet_map, keypointnet_pck
from keyorbit.evaluation.metrics.landmarks import (
    apply_landmark_map,
    apply_landmark_weights,
    fit_landmark_map,
    fit_landmark_weights,
    landmark_regression_2d,
    landmark_regression_3d,
    without_misfits,
)
from keyorbit.evaluation.metrics.pictures import (
    mean_reprojection,
    mean_reprojection_percent,
    mean_reprojection_px,
    on_object_rate,
)
from keyorbit.evaluation.metrics.points import normalised_mean_error, pck, pck_per_image, pck_per_point, point_error
from keyorbit.evaluation.metrics.pose import (
    best_rotation,
    mpjpe,
    n_mpjpe,
    pa_mpjpe,
    procrustes_align,
    relative_pose_error,
    vertical_turn,
)
from keyorbit.evaluation.metrics.protocols import (
    HUMAN36M_PUBLISHED,
    HUMAN36M_SWAPS,
    fit_oriented_landmark_map,
    inter_eye_error,
    mean_average_error,
    orientation_invariant_error,
    pck_at_pixels,
    visible_error,
)
from keyorbit.evaluation.metrics.shape import coverage, extent_coverage, inclusivity
from keyorbit.evaluation.metrics.view_quality import psnr, ssim

__all__ = [
    "HUMAN36M_PUBLISHED",
    "HUMAN36M_SWAPS",
    "apply_landmark_map",
    "apply_landmark_weights",
    "best_rotation",
    "coverage",
    "distinct_repeatability",
    "dual_alignment_score",
    "extent_coverage",
    "fit_landmark_map",
    "fit_landmark_weights",
    "fit_oriented_landmark_map",
    "geodesic_iou",
    "hungarian_iou",
    "inclusivity",
    "inter_eye_error",
    "keypointnet_iou",
    "keypointnet_map",
    "keypointnet_pck",
    "label_free_correspondence",
    "landmark_regression_2d",
    "landmark_regression_3d",
    "mean_average_error",
    "mean_reprojection",
    "mean_reprojection_percent",
    "mean_reprojection_px",
    "mpjpe",
    "n_mpjpe",
    "normalised_mean_error",
    "on_object_rate",
    "orientation_invariant_error",
    "pa_mpjpe",
    "pck",
    "pck_at_pixels",
    "pck_per_image",
    "pck_per_point",
    "point_error",
    "procrustes_align",
    "psnr",
    "relative_pose_error",
    "repeatability",
    "snapped_iou",
    "ssim",
    "vertical_turn",
    "visible_error",
    "without_misfits",
]
