"""How good keypoints are, against what is known of the objects."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from keyorbit.data import Objects, Truth, stack_truths
from keyorbit.detect import Detection, KeypointDetector
from keyorbit.keypoints import Keypoints3D
from keyorbit.metrics import (
    apply_landmark_weights,
    coverage,
    dual_alignment_score,
    fit_landmark_weights,
    on_object_rate,
)

# Landmarks and world are in units of the object's bounding diameter, so an error of 0.05 is 5 % of its size.
COVERED = 0.1
SEEN = 0.1


@dataclass(frozen=True)
class ObjectScores:
    """One object: keypoints with a score, median reprojection error (sides of a view), mean landmark error.

    ``landmark_3d`` in object sizes; ``landmark_2d`` in sides of the view, for models of a single view.
    """

    name: str
    keypoints: int
    reprojection: float | None
    landmark_3d: float | None
    landmark_2d: float | None = None


@dataclass(frozen=True)
class InputScores:
    """The input pictures' cameras: median error of the elevation in degrees, median reprojection in sides.

    A camera that could not be known counts as infinitely wrong; None where half of them or more are, or none has a
    truth. elevations: how many have a truth; unknown: objects whose camera could not be known.
    """

    elevation_error_deg: float | None
    reprojection: float | None
    elevations: int
    unknown: int


@dataclass(frozen=True)
class Evaluation:
    """All objects together. None: the objects have no truth.

    reprojection and landmark_2d are in sides of a view, landmark_3d in object sizes. landmark_2d: the predicted 3D
    landmarks in every view, against the true places of those that are visible there. Models of a single view have no
    reprojection and no 3D: landmarks are then predicted in the picture, and dual alignment and coverage are of 2D
    points, within the same share of the view's side.
    """

    objects: tuple[ObjectScores, ...]
    reprojection: float | None
    on_object: float
    landmark_3d: float | None
    landmark_2d: float | None
    dual_alignment: float | None
    coverage: float | None
    input: InputScores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def detect_all(
    detector: KeypointDetector,
    objects: Objects,
    progress: Callable[[int, int], None] | None = None,
) -> list[Detection]:
    """Detections of every object, in order."""
    found = []
    for i, thing in enumerate(objects):
        found.append(detector.detect_object(thing))
        if progress is not None:
            progress(i + 1, len(objects))
    return found


def evaluate(
    detections: Sequence[Detection],
    objects: Objects,
    fit_detections: Sequence[Detection] = (),
    fit_objects: Objects = (),
) -> Evaluation:
    """Every metric that the objects' truth allows.

    Landmarks are fixed weighted means of the keypoints, in 3D or, from a single view, in the input picture; they are
    fitted on ``fit_objects``, or without those on one half of the objects for the other half, both ways.
    """
    spatial = all(d.keypoints_3d is not None for d in detections)
    reprojection = None
    if spatial:
        reprojection = float(torch.stack([_points(d).reprojection_error for d in detections]).median())
    given = _input_scores(detections, objects)
    rate = float(torch.stack([_on_object(d) for d in detections]).mean())
    if any(thing.truth is None for thing in objects):
        rows = tuple(_row(d, None) for d in detections)
        return Evaluation(rows, reprojection, rate, None, None, None, None, given)
    truths = stack_truths(objects)
    points, landmarks, known = _stack(detections, truths)
    if fit_detections:
        predicted = _predict(*_stack(fit_detections, stack_truths(fit_objects)), points)
    else:
        predicted = _cross_predict(points, landmarks, known)
    errors = torch.linalg.vector_norm(predicted - landmarks, dim=-1)
    rows = tuple(
        _row(d, float(e[k].mean()) if k.any() else None) for d, e, k in zip(detections, errors, known, strict=True)
    )
    error = float(errors[known].mean())
    return Evaluation(
        rows,
        reprojection,
        rate,
        error if spatial else None,
        _landmark_2d(detections, truths, predicted) if spatial else error,
        float(dual_alignment_score(points, landmarks, known)) if len(points) > 1 else None,
        float(coverage(points, landmarks, COVERED, known)),
        given,
    )


def _input_scores(detections: Sequence[Detection], objects: Objects) -> InputScores | None:
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


def _finite_median(values: Sequence[float]) -> float | None:
    middle = median(values) if values else math.inf
    return middle if math.isfinite(middle) else None


def _points(detection: Detection) -> Keypoints3D:
    assert detection.keypoints_3d is not None
    return detection.keypoints_3d


def _row(detection: Detection, error: float | None) -> ObjectScores:
    points = detection.keypoints_3d
    if points is None:
        seen = int((detection.keypoints_2d.score[0] > SEEN).sum())
        return ObjectScores(detection.name, seen, None, None, error)
    return ObjectScores(
        detection.name, int((points.score > SEEN).sum()), float(points.reprojection_error.median()), error
    )


def _on_object(detection: Detection) -> Tensor:
    cameras = detection.keypoints_2d.cameras
    places = detection.keypoints_2d.xy if cameras is None else cameras.project(_points(detection).xyz)
    return on_object_rate(places[None], detection.masks[None])


def _stack(detections: Sequence[Detection], truths: Sequence[Truth]) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints and landmarks in space, or those of the input picture where that is the only view."""
    if any(d.keypoints_3d is None for d in detections):
        return (
            torch.stack([d.keypoints_2d.xy[0] for d in detections]),
            torch.stack([t.keypoints_2d[0] for t in truths]),
            torch.stack([t.known & t.visible[0] for t in truths]),
        )
    return (
        torch.stack([_points(d).xyz for d in detections]),
        torch.stack([t.keypoints_3d for t in truths]),
        torch.stack([t.known for t in truths]),
    )


def _predict(fit_points: Tensor, fit_landmarks: Tensor, fit_known: Tensor, points: Tensor) -> Tensor:
    """The landmarks of other objects from their keypoints: [item landmark 3]."""
    return apply_landmark_weights(fit_landmark_weights(fit_points, fit_landmarks, fit_known), points)


def _cross_predict(points: Tensor, landmarks: Tensor, known: Tensor) -> Tensor:
    even = torch.arange(len(points)) % 2 == 0
    if len(points) < 2:
        return _predict(points, landmarks, known, points)
    predicted = torch.empty_like(landmarks)
    for test in (even, ~even):
        fit = ~test
        predicted[test] = _predict(points[fit], landmarks[fit], known[fit], points[test])
    return predicted


def _landmark_2d(detections: Sequence[Detection], truths: Sequence[Truth], predicted: Tensor) -> float:
    errors = []
    for detection, truth, points in zip(detections, truths, predicted, strict=True):
        cameras = detection.keypoints_2d.cameras
        assert cameras is not None
        distance = torch.linalg.vector_norm(cameras.project(points) - truth.keypoints_2d[1:], dim=-1)
        errors.append(distance[truth.visible[1:] & truth.known])
    return float(torch.cat(errors).mean())
