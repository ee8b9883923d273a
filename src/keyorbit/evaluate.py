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
    """All objects together; lengths in sides of a view (reprojection) or in object sizes (3D). None: no truth."""

    objects: tuple[ObjectScores, ...]
    reprojection: float
    on_object: float
    landmark_3d: float | None
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
        return Evaluation(tuple(rows), float(reprojection.median()), float(rate), None, None, None)
    truths = stack_truths(objects)
    points, landmarks, known = _stack(detections, truths)
    if fit_detections:
        errors = _errors(*_stack(fit_detections, stack_truths(fit_objects)), points, landmarks)
    else:
        errors = _cross_errors(points, landmarks, known)
    rows = [_row(d, float(e[k].mean())) for d, e, k in zip(detections, errors, known, strict=True)]
    several = len(points) > 1
    return Evaluation(
        tuple(rows),
        float(reprojection.median()),
        float(rate),
        float(errors[known].mean()),
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


def _errors(fit_points: Tensor, fit_landmarks: Tensor, fit_known: Tensor, points: Tensor, landmarks: Tensor) -> Tensor:
    weights = fit_landmark_weights(fit_points, fit_landmarks, fit_known)
    errors: Tensor = torch.linalg.vector_norm(apply_landmark_weights(weights, points) - landmarks, dim=-1)
    return errors


def _cross_errors(points: Tensor, landmarks: Tensor, known: Tensor) -> Tensor:
    even = torch.arange(len(points)) % 2 == 0
    if len(points) < 2:
        return _errors(points, landmarks, known, points, landmarks)
    errors = torch.empty(landmarks.shape[:2])
    for test in (even, ~even):
        fit = ~test
        errors[test] = _errors(points[fit], landmarks[fit], known[fit], points[test], landmarks[test])
    return errors
