"""Evaluate keypoints against the ground truth of the objects."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.found import Detection
from keyorbit.errors import InputError
from keyorbit.evaluation import metrics
from keyorbit.evaluation.input_scores import InputScores, drawn_back, input_scores
from keyorbit.evaluation.landmarks import (
    Judged,
    agreed,
    alike,
    check_landmarks,
    judged,
    nearest_turns,
    predict_landmarks,
    regress_landmarks,
    view_boxes,
)
from keyorbit.evaluation.measures import (
    MEASURES,
    NEAR,
    InPictures,
    InPlane,
    InSpace,
    Moved,
    OnSurface,
    Reprojected,
    measured,
    motion_of,
)
from keyorbit.evaluation.metrics.iou import geodesic_distances
from keyorbit.evaluation.on_mesh import KeypointNetFigures, keypointnet_figures, on_meshes
from keyorbit.evaluation.outcome import Outcome
from keyorbit.evaluation.reducing import outcome_of
from keyorbit.evaluation.symmetry import turned_truth
from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.objects.dataset import Objects, ObjectViews, Truth, stack_truths
from keyorbit.objects.given import check_given
from keyorbit.results import Shown, number_of, share, told
from keyorbit.storage.content import json_of
from keyorbit.storage.files import write_json
from keyorbit.values import as_path, check_kind, from_values

SEEN = 0.1
Found = Detection | Outcome
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectScores:
    """The figures of one object. None where the truth does not allow a figure.

    Attributes:
        name: of the object.
        keypoints: number of keypoints with a score above 0.1.
        reprojection: median reprojection error, in sides of the view.
        landmark_3d: mean error of the predicted landmarks, in sizes of the object.
        landmark_2d: the same for models of a single view, in sides of the view.
        turn_deg: the turn about the vertical that brings the predicted landmarks nearest to the true ones, −180…180
            degrees, at its largest for an object whose keypoints were found the wrong way round; see
            :func:`keyorbit.metrics.vertical_turn`. None also where landmarks determine none.
    """

    name: str
    keypoints: int
    reprojection: float | None
    landmark_3d: float | None
    landmark_2d: float | None = None
    turn_deg: float | None = None


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """The figures of all objects together. None where the truth does not allow a figure.

    With a model of a single view there is no reprojection and no 3D: landmarks are then predicted in the picture, and
    dual alignment and coverage are those of 2D points, within the same share of the view's side.

    Attributes:
        objects: figures of each object.
        reprojection: median reprojection error, in sides of the view.
        on_object: share of the keypoints on the object's silhouette, over all views.
        landmark_3d: mean error of the predicted landmarks, in sizes of the object.
        landmark_3d_median: median over objects of the object's mean error: what a few wrong turns do not change.
        landmark_2d: mean distance, in every view, of the predicted 3D landmarks from the true positions of those that
            are visible there, in sides of the view.
        landmark_2d_median: median over objects of the object's mean distance.
        dual_alignment: Skeleton Merger's dual alignment score, 0…1.
        coverage: share of the landmarks with a keypoint within a tenth of the object's size.
        input: figures of the input pictures' cameras; None if the model has none.
        measures: every figure by its unambiguous name, see :data:`keyorbit.evaluation.measures.MEASURES`.
        misfits: names of the objects that were left out when the weights of the landmarks were fitted, because the fit
            of the others misses them by far; see :func:`keyorbit.metrics.without_misfits`.
        keypointnet: KeypointNet's figures, for objects that were rendered from meshes; None for others.
        left_out: names of the objects that could not be used, of which there are no figures.
    """

    objects: tuple[ObjectScores, ...]
    reprojection: float | None
    on_object: float
    landmark_3d: float | None
    landmark_2d: float | None
    dual_alignment: float | None
    coverage: float | None
    input: InputScores | None = None
    measures: dict[str, float | None] = field(default_factory=dict)
    landmark_3d_median: float | None = None
    landmark_2d_median: float | None = None
    misfits: tuple[str, ...] = ()
    keypointnet: KeypointNetFigures | None = None
    left_out: tuple[str, ...] = ()

    def __repr__(self) -> str:
        spatial = self.landmark_3d is not None
        error = self.landmark_3d if spatial else self.landmark_2d
        landmarks = f"landmarks within {share(error)} of the {'object' if spatial else 'side'}"
        return told(
            "Evaluation",
            (
                number_of(len(self.objects), "object"),
                f"{len(self.left_out)} left out" if self.left_out else "",
                "" if error is None else landmarks,
                "" if self.reprojection is None else f"reprojection error {share(self.reprojection)} of the side",
                f"{self.on_object:.0%} of the keypoints on the object",
            ),
        )

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.objects)

    def __getitem__(self, which: int | str) -> ObjectScores:
        """The figures of one object, by its number or its name.

        Raises:
            IndexError: there is none of that number.
            KeyError: there is none of that name.
        """
        if isinstance(which, str):
            named = {one.name: one for one in self.objects}
            return named[which]
        return self.objects[which]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; without KeypointNet's figures where there are none."""
        return {name: value for name, value in asdict(self).items() if name != "keypointnet" or value is not None}

    def numpy(self) -> dict[str, Any]:
        """The figures of each object as columns: NaN where the truth does not allow a figure."""
        names = [one.name for one in fields(ObjectScores)]
        columns = {name: [getattr(row, name) for row in self.objects] for name in names}
        return {
            name: np.array(column, str if name == "name" else float)  # of None becomes NaN
            for name, column in columns.items()
        }

    def save(self, path: str | Path) -> None:
        """Write a JSON file; whole or not at all.

        Raises:
            InputError: the disk refuses, or a figure is not finite.
        """
        write_json(as_path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is missing or damaged, or holds something else.
        """
        return from_values(cls, json_of(as_path(path)), str(path))


def detect_all(
    detector: KeypointDetector,
    objects: Objects,
    progress: Callable[[int, int], None] | None = None,
    batch: int | None = None,
) -> list[Detection]:
    """Detect keypoints on every object, in order; see :func:`detect_each`.

    Raises:
        InputError: ``batch`` is below 1, or an object does not fit the model.
    """
    return detect_each({"": detector}, objects, progress, batch)[""]


def detect_each(
    detectors: Mapping[str, KeypointDetector],
    objects: Objects,
    progress: Callable[[int, int], None] | None = None,
    batch: int | None = None,
) -> dict[str, list[Detection]]:
    """Detect keypoints on every object with several detectors of one model. Each object is recorded only once.

    For tokens that are the model's whole context it is recorded once for each detector.

    Args:
        progress: called as ``progress(done, total)`` after each object.
        batch: objects that go through the model together, 1 or more. Default 1 on the CPU and 8 elsewhere. It changes
            the results by rounding alone.

    Raises:
        InputError: the detectors need different recordings, ``batch`` is below 1, or an object does not fit the model.
    """
    found: dict[str, list[Detection]] = {name: [] for name in detectors}
    if len(detectors) > 1 and any(one.context is not None for one in detectors.values()):
        # The model reads each detector's own tokens.
        return {name: detect_each({name: one}, objects, progress, batch)[name] for name, one in detectors.items()}
    first = next(iter(detectors.values()))
    for i, recording in enumerate(first.record_each(objects, batch)):
        for name, detector in detectors.items():
            found[name].append(detector.read(recording))
        if progress is not None:
            progress(i + 1, len(objects))
    return found


def evaluate(
    detections: Sequence[Found],
    objects: Objects,
    fit_detections: Sequence[Found] = (),
    fit_objects: Objects = (),
    moved: tuple[Sequence[Found], Objects] | None = None,
) -> Evaluation:
    """Compute every metric that the objects' truth allows.

    Landmarks are predicted as fixed weighted means of the keypoints, in 3D or, from a single view, in the input
    picture.

    Args:
        detections: one for each object.
        objects: with their truth.
        fit_detections: of other objects, on which the weights of the landmarks are fitted. Default: none, and the
            weights are fitted on each half of the objects for the other half.
        fit_objects: these objects.
        moved: detections and objects of the same objects, in the same order, after a motion that their landmarks
            determine. Default None: repeatability is not measured.

    Raises:
        InputError: the moved objects are not the same, objects differ in their number of landmarks, there is not a
            detection for each, or there is none.
    """
    check_given(objects)
    check_given(fit_objects)
    _check_found(detections, objects)
    _check_found(fit_detections, fit_objects)
    if not detections:
        raise InputError("there are no objects to evaluate: give one at least, and what was detected on it")
    if moved is not None:
        check_kind("moved", moved, list | tuple, "detections and their objects")
        check_given(moved[1])
        _check_found(moved[0], moved[1])
    again = None if moved is None else (list(map(outcome_of, moved[0])), list(moved[1]))
    if again is not None and [thing.name for thing in again[1]] != [thing.name for thing in objects]:
        raise InputError("the moved objects are not the same as the others: they need the same names in the same order")
    found, fitted = (list(map(outcome_of, some)) for some in (detections, fit_detections))
    return evaluate_outcomes(found, list(objects), fitted, list(fit_objects), again)


def _check_found(detections: object, objects: Objects) -> None:
    """Raise InputError unless there is a detection for each object."""
    check_kind("detections", detections, list | tuple, "a list, as KeypointDetector.detect_object returns of several")
    assert isinstance(detections, list | tuple)
    for number, one in enumerate(detections):
        check_kind(f"detections[{number}]", one, Found, "what KeypointDetector.detect_object returns")
    if len(detections) != len(objects):
        raise InputError(f"{len(detections)} detections do not fit {len(objects)} objects: give one for each")


def evaluate_outcomes(
    detections: Sequence[Outcome],
    objects: Sequence[ObjectViews],
    fit_detections: Sequence[Outcome] = (),
    fit_objects: Sequence[ObjectViews] = (),
    moved: tuple[Sequence[Outcome], Sequence[ObjectViews]] | None = None,
) -> Evaluation:
    """The same of outcomes, which may be of very many objects; of those that were moved, some may be missing.

    Raises:
        InputError: a moved object is not among the others, or as :func:`evaluate`.
    """
    began = time.monotonic()
    check_landmarks([*objects, *fit_objects, *(moved[1] if moved else ())])
    first = next(iter(objects), None)
    objects = alike(objects, first)
    fit_objects, moved = alike(fit_objects, first), moved and (moved[0], alike(moved[1], first))
    points = [d.keypoints_3d for d in detections if d.keypoints_3d is not None]
    spatial = len(points) == len(detections)
    reprojection = float(torch.stack([p.reprojection_error for p in points]).median()) if spatial else None
    given = input_scores(detections, objects)
    rate = float(torch.stack([d.on_object for d in detections]).mean())
    measures: dict[str, float | None] = dict.fromkeys(MEASURES)
    measures |= _reprojection(detections, points) if spatial else {}
    test = None if any(thing.truth is None for thing in objects) else judged(detections, objects)
    if test is None:
        rows = tuple(_row(d) for d in detections)
        return Evaluation(rows, reprojection, rate, None, None, None, None, given, measures)
    fit = judged(fit_detections, fit_objects) if fit_detections else None
    whole, test, fit = test, agreed(test), None if fit is None else agreed(fit)
    predicted, kept = predict_landmarks(test, fit)
    truths = stack_truths(objects)
    if bool((test.orders > 1).any()):
        turns = nearest_turns(predicted, whole)
        test = whole.turned(turns)
        cameras = [d.keypoints_2d.cameras for d in detections]
        truths = [turned_truth(*one) for one in zip(truths, turns, cameras, strict=True)]
    errors = torch.linalg.vector_norm(predicted - test.landmarks, dim=-1)
    if given is not None and test.spatial:
        given = replace(given, landmark_2d=drawn_back(detections, truths, predicted))
    in_pictures = _in_pictures(detections, truths, predicted)
    measures |= _measures(test, fit, predicted, truths) | measured(InPictures.joined(in_pictures))
    along = on_meshes(detections, truths, predicted) if test.spatial else None
    measures |= {} if along is None else measured(along)
    if moved is not None:
        measures |= _motion(test, fit, objects, *moved)
    each = [_known_mean(e, k) for e, k in zip(errors, test.known, strict=True)]
    in_views = [torch.linalg.vector_norm(one.predicted - one.truth, dim=-1) for one in in_pictures]
    seen = [one.seen for one in in_pictures]
    angles = (
        metrics.vertical_turn(predicted, test.landmarks, test.known).tolist()
        if test.spatial
        else [math.nan] * len(each)
    )
    fitted = fit_objects if fit is not None else objects
    misfits = tuple(thing.name for thing, one in zip(fitted, kept.tolist(), strict=True) if not one)
    others = f"{len(fit_objects)} others" if fit is not None else "each half for the other"
    spent = time.monotonic() - began
    log.info(
        "%d objects measured, landmarks fitted on %s without %d misfits, in %.1f s",
        len(objects),
        others,
        len(misfits),
        spent,
    )
    return Evaluation(
        tuple(_row(*one) for one in zip(detections, each, angles, strict=True)),
        reprojection,
        rate,
        _known_mean(errors, test.known) if test.spatial else None,
        _known_mean(torch.cat(in_views), torch.cat(seen)),
        measures["skeleton_merger_das"],
        measures[f"landmark_coverage_{NEAR}"],
        given,
        measures,
        _known_median(each) if test.spatial else None,
        _known_median([_known_mean(e, k) for e, k in zip(in_views, seen, strict=True)]),
        misfits,
        None if along is None else keypointnet_figures(along),
    )


def _measures(test: Judged, fit: Judged | None, predicted: Tensor, truths: Sequence[Truth]) -> dict[str, float | None]:
    if not test.spatial:
        return measured(InPlane(test.points, test.landmarks, test.known, regress_landmarks(test, fit)))
    found = measured(InSpace(test.points, test.landmarks, test.known, predicted))
    surfaces = [t.surface for t in truths if t.surface is not None]
    if len(surfaces) == len(truths) and len({len(surface) for surface in surfaces}) == 1:
        landmarks = test.landmarks.masked_fill(~test.known[..., None], 0)
        geodesic = torch.stack([geodesic_distances(x, s) for x, s in zip(landmarks, surfaces, strict=True)])
        found |= measured(OnSurface(test.points, torch.stack(surfaces), landmarks, test.known, geodesic))
    return found


def _reprojection(detections: Sequence[Outcome], points: Sequence[Keypoints3D]) -> dict[str, float | None]:
    """Compute the mean over keypoints, views and objects; every view counts, whatever its score."""
    each = []
    for detection, found in zip(detections, points, strict=True):
        height, width = detection.size
        flat = detection.keypoints_2d
        each.append(measured(Reprojected(found.xyz, flat.xy, flat.cameras, height, width)))
    return {name: fmean(float(one[name] or 0.0) for one in each) for name in each[0]}


def _in_pictures(detections: Sequence[Outcome], truths: Sequence[Truth], predicted: Tensor) -> list[InPictures]:
    """All views of each object as items."""
    found = []
    for detection, truth, points in zip(detections, truths, predicted, strict=True):
        cameras = detection.keypoints_2d.cameras
        # A truth begins with the input picture, where landmarks are that were not predicted in space.
        spatial = cameras is not None and points.shape[-1] == 3
        xy, first = (cameras.project(points), 1) if cameras is not None and spatial else (points[None], 0)
        views = slice(first, first + len(xy))
        boxes, flat = view_boxes(detection, truth, views), truth.keypoints_2d[views]
        # Not all views need be annotated.
        found.append(InPictures(xy[: len(flat)], flat, truth.visible[views] & truth.known, boxes))
    return found


def _motion(
    test: Judged,
    fit: Judged | None,
    objects: Objects,
    moved_detections: Sequence[Outcome],
    moved_objects: Sequence[ObjectViews],
) -> dict[str, float | None]:
    there = {thing.name for thing in moved_objects}
    both = torch.tensor([thing.name in there for thing in objects])
    if [thing.name for thing in objects if thing.name in there] != [thing.name for thing in moved_objects]:
        raise InputError("the moved objects are not the same as the others: they need the same names in the same order")
    fit, test = fit or test, test.select(both)
    if not moved_objects:
        return {}
    after = judged(moved_detections, moved_objects)
    if after is None or not (after.spatial and test.spatial):
        return {}
    if bool((after.orders > 1).any()):  # both in the turns that the same weights are nearest to
        after = after.turned(nearest_turns(predict_landmarks(after, fit)[0], after))
    motion = motion_of(test.landmarks, after.landmarks, test.known & after.known)
    return measured(Moved(test.points, after.points, motion))


def _known_mean(errors: Tensor, known: Tensor) -> float | None:
    return float(errors[known].mean()) if bool(known.any()) else None


def _known_median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _row(detection: Outcome, error: float | None = None, angle: float = math.nan) -> ObjectScores:
    points = detection.keypoints_3d
    if points is None:
        seen = int((detection.keypoints_2d.score[0] > SEEN).sum())
        return ObjectScores(detection.name, seen, None, None, error)
    seen, middle = int((points.score > SEEN).sum()), float(points.reprojection_error.median())
    return ObjectScores(detection.name, seen, middle, error, None, None if math.isnan(angle) else angle)
