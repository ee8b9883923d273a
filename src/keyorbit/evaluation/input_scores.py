"""How well the cameras of the input pictures were found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from keyorbit.evaluation.outcome import Outcome
from keyorbit.objects.dataset import Objects, Truth


@dataclass(frozen=True)
class InputScores:
    """The figures of the input pictures' cameras, each a median over the objects.

    A camera that could not be estimated (score 0) counts as an infinite error. A median is None if half of the errors
    or more are infinite, or if no object has the truth that it needs.

    Attributes:
        elevation_error_deg: error of the elevation, degrees.
        reprojection: distance between the projected keypoints and their positions in the picture's own heatmaps, in
            sides of the picture.
        elevations: number of objects whose true elevation is known.
        unknown: number of objects whose camera could not be estimated.
        landmark_2d: distance between the predicted 3D landmarks, projected by the estimated camera, and their true
            positions in the picture, in sides of the picture. Only landmarks that are visible there count.
    """

    elevation_error_deg: float | None
    reprojection: float | None
    elevations: int
    unknown: int
    landmark_2d: float | None = None


def input_scores(detections: Sequence[Outcome], objects: Objects) -> InputScores | None:
    """Compute the figures of the input pictures' cameras but ``landmark_2d``; None if a detection has no camera."""
    errors, residuals, unknown = [], [], 0
    for detection, thing in zip(detections, objects, strict=True):
        camera = detection.input_camera
        if camera is None:
            return None
        known = float(camera.score) > 0
        unknown += not known
        residuals.append(float(camera.residual.median()) if known else math.inf)
        if thing.input_elevation_deg is not None:
            error = abs(float(camera.elevation_deg) - thing.input_elevation_deg)
            errors.append(error if known else math.inf)
    return InputScores(_finite_median(errors), _finite_median(residuals), len(errors), unknown)


def drawn_back(detections: Sequence[Outcome], truths: Sequence[Truth], predicted: Tensor) -> float | None:
    """Compute the median over objects of the mean distance of predicted landmarks, projected by the input camera."""
    distances = []
    for detection, truth, points in zip(detections, truths, predicted, strict=True):
        camera, seen = detection.input_camera, truth.visible[0] & truth.known
        if camera is not None and bool(seen.any()):
            scale, shift = (1.0, (0.0, 0.0)) if detection.framing is None else detection.framing.to_middle
            places = camera.cameras.zoomed(scale, shift).project(points)[0]
            away = torch.linalg.vector_norm(places - truth.keypoints_2d[0], dim=-1)
            distances.append(float(away[seen].mean()) if float(camera.score) > 0 else math.inf)
    return _finite_median(distances)


def _finite_median(values: Sequence[float]) -> float | None:
    middle = median(values) if values else math.inf
    return middle if math.isfinite(middle) else None
