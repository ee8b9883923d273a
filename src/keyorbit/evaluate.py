"""How good keypoints are, against what is known of the objects."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from keyorbit.data import Objects, Truth, stack_truths
from keyorbit.detect import Detection, KeypointDetector
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
    """One object: keypoints with a score, median reprojection error (sides of a view), mean 3D landmark error."""

    name: str
    keypoints: int
    reprojection: float
    landmark_3d: float | None


@dataclass(frozen=True)
class Evaluation:
    """All objects together. None: the objects have no truth.

    reprojection and landmark_2d are in sides of a view, landmark_3d in object sizes. landmark_2d: the predicted 3D
    landmarks in every view, against the true places of those that are visible there.
    """

    objects: tuple[ObjectScores, ...]
    reprojection: float
    on_object: float
    landmark_3d: float | None
    landmark_2d: float | None
    dual_alignment: float | None
    coverage: float | None

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

    3D landmarks are fixed weighted means of the 3D keypoints, fitted on ``fit_objects``; without those, on one half of
    the objects for the other half, both ways.
    """
    reprojection = torch.stack([d.keypoints_3d.reprojection_error for d in detections])
    rate = torch.stack([_on_object(d) for d in detections]).mean()
    if any(thing.truth is None for thing in objects):
        rows = [_row(d, None) for d in detections]
        return Evaluation(tuple(rows), float(reprojection.median()), float(rate), None, None, None, None)
    truths = stack_truths(objects)
    points, landmarks, known = _stack(detections, truths)
    if fit_detections:
        predicted = _predict(*_stack(fit_detections, stack_truths(fit_objects)), points)
    else:
        predicted = _cross_predict(points, landmarks, known)
    errors = torch.linalg.vector_norm(predicted - landmarks, dim=-1)
    rows = [_row(d, float(e[k].mean())) for d, e, k in zip(detections, errors, known, strict=True)]
    several = len(points) > 1
    return Evaluation(
        tuple(rows),
        float(reprojection.median()),
        float(rate),
        float(errors[known].mean()),
        _landmark_2d(detections, truths, predicted),
        float(dual_alignment_score(points, landmarks, known)) if several else None,
        float(coverage(points, landmarks, COVERED, known)),
    )


def _row(detection: Detection, error: float | None) -> ObjectScores:
    points = detection.keypoints_3d
    return ObjectScores(
        detection.name, int((points.score > SEEN).sum()), float(points.reprojection_error.median()), error
    )


def _on_object(detection: Detection) -> Tensor:
    cameras = detection.keypoints_2d.cameras
    assert cameras is not None
    projected = cameras.project(detection.keypoints_3d.xyz)
    return on_object_rate(projected[None], detection.masks[None])


def _stack(detections: Sequence[Detection], truths: Sequence[Truth]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.stack([d.keypoints_3d.xyz for d in detections]),
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
