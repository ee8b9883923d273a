"""Numbers to judge keypoints by. Names that the literature uses twice are told apart in the docstrings.

Lengths are in the unit of the points given: sides of the view for xy, world units for 3D.
"""

from keyorbit.metrics.correspondence import dual_alignment_score
from keyorbit.metrics.landmarks import (
    apply_landmark_weights,
    fit_landmark_weights,
    landmark_regression_2d,
    landmark_regression_3d,
    pck,
    point_error,
)
from keyorbit.metrics.pose import mpjpe, n_mpjpe, pa_mpjpe, procrustes_align
from keyorbit.metrics.shape import coverage, mean_reprojection, on_object_rate

__all__ = [
    "apply_landmark_weights",
    "coverage",
    "dual_alignment_score",
    "fit_landmark_weights",
    "landmark_regression_2d",
    "landmark_regression_3d",
    "mean_reprojection",
    "mpjpe",
    "n_mpjpe",
    "on_object_rate",
    "pa_mpjpe",
    "pck",
    "point_error",
    "procrustes_align",
]
