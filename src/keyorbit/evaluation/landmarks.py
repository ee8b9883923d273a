"""Stack detections and ground truth, from which the metrics are computed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.evaluation.metrics import (
    apply_landmark_map,
    apply_landmark_weights,
    fit_landmark_map,
    fit_landmark_weights,
    without_misfits,
)
from keyorbit.evaluation.outcome import Outcome
from keyorbit.evaluation.symmetry import common_turns, order_of, turns_nearest
from keyorbit.objects.dataset import ObjectViews, Truth, stack_truths
from keyorbit.values import short

# Times that weights and the turns of symmetric objects are fitted to each other; two or three are enough.
_ROUNDS = 5


@dataclass(frozen=True, eq=False)
class Judged:
    """Keypoints and landmarks of several objects: in space, or in the input pictures if there is no 3D.

    Attributes:
        points: the keypoints.
        landmarks: the true landmarks.
        known: False for landmarks that an object lacks, or that its input picture does not show.
        orders: how many turns about the vertical bring each object onto itself; 1 in pictures.
    """

    points: Float[Tensor, "item keypoint dim"]
    landmarks: Float[Tensor, "item landmark dim"]
    known: Bool[Tensor, "item landmark"]
    orders: Int[Tensor, " item"]

    @property
    def spatial(self) -> bool:
        """Whether the points are in space."""
        return self.points.shape[-1] == 3

    def select(self, chosen: Bool[Tensor, " item"]) -> "Judged":
        """Return some of the objects."""
        return Judged(self.points[chosen], self.landmarks[chosen], self.known[chosen], self.orders[chosen])

    def turned(self, turns: Float[Tensor, "item 3 3"]) -> "Judged":
        """Return the same with the landmarks of each object turned."""
        return replace(self, landmarks=self.landmarks @ turns.mT)


def check_landmarks(objects: Iterable[ObjectViews]) -> None:
    """Check that objects which are measured together have as many landmarks each, or no truth.

    Raises:
        InputError: two differ.
    """
    counts = {len(thing.truth.names): thing.name for thing in objects if thing.truth is not None}
    if len(counts) > 1:
        (some, one), (others, other), *_ = counts.items()
        raise InputError(
            f"{one} has {some} landmarks and {other} {others}; what is measured together has the same ones"
        )


def alike(objects: Sequence[ObjectViews], first: ObjectViews | None = None) -> list[ObjectViews]:
    """Return objects with their landmarks in one order, that of ``first``, or of the first object that has truth.

    What is measured is measured by places in that order. Objects that files describe, each for itself, may tell the
    same landmarks in different ones.

    Raises:
        InputError: an object has other landmarks.
    """
    if first is None:
        first = next((thing for thing in objects if thing.truth is not None), None)
    names = None if first is None or first.truth is None else first.truth.names
    if first is None or names is None or len(set(names)) < len(names):
        return list(objects)
    return [
        thing if thing.truth is None else replace(thing, truth=_ordered(thing, thing.truth, first.name, names))
        for thing in objects
    ]


def _ordered(thing: ObjectViews, truth: Truth, first: str, names: tuple[str, ...]) -> Truth:
    """The truth of an object in the order of the first one's names."""
    if truth.names == names:
        return truth
    own, others = set(truth.names), set(names)
    if odd := sorted(own ^ others):
        has, lacks = (thing.name, first) if odd[0] in own else (first, thing.name)
        raise InputError(
            f"{has} has a landmark {short(odd[0])} and {lacks} has none; what is measured together has the same ones "
            "(null for one that an object lacks)"
        )
    order = [truth.names.index(name) for name in names]
    return Truth(
        names,
        tuple((order.index(left), order.index(right)) for left, right in truth.pairs),
        None if truth.keypoints_3d is None else truth.keypoints_3d[order],
        truth.known[order],
        truth.keypoints_2d[:, order],
        truth.visible[:, order],
        truth.boxes,
        truth.surface,
    )


def judged(detections: Sequence[Outcome], objects: Sequence[ObjectViews]) -> Judged | None:
    """Stack in space if all detections and truths have 3D, else in the input pictures; None without keypoints.

    Raises:
        InputError: an object has no truth, or they differ in the number of landmarks.
    """
    truths = stack_truths(objects)
    spaces = [d.keypoints_3d.xyz for d in detections if d.keypoints_3d is not None]
    places = [t.keypoints_3d for t in truths if t.keypoints_3d is not None]
    if len(spaces) == len(detections) and len(places) == len(truths):
        orders = torch.tensor([order_of(thing.symmetry) for thing in objects])
        return Judged(torch.stack(spaces), torch.stack(places), torch.stack([t.known for t in truths]), orders)
    pictures = [_in_picture(d) for d in detections]
    seen = [xy for xy in pictures if xy is not None]
    if len(seen) < len(pictures):
        return None
    return Judged(
        torch.stack(seen),
        torch.stack([t.keypoints_2d[0] for t in truths]),
        torch.stack([t.known & t.visible[0] for t in truths]),
        torch.ones(len(seen), dtype=torch.int64),
    )


def agreed(some: Judged) -> Judged:
    """Return the same with symmetric objects in turns in which keypoints and landmarks are related in one way."""
    if not bool((some.orders > 1).any()):
        return some
    return some.turned(common_turns(some.points, some.landmarks, some.known, some.orders))


def nearest_turns(predicted: Float[Tensor, "item landmark dim"], some: Judged) -> Float[Tensor, "item 3 3"]:
    """Compute the turns, of those that symmetry allows, in which the true landmarks are nearest to the predicted."""
    return turns_nearest(predicted, some.landmarks, some.known, some.orders)


def fit_weights(fit: Judged) -> tuple[Float[Tensor, "landmark keypoint"], Bool[Tensor, " item"]]:
    """Fit the weights with which keypoints predict landmarks, without misfits; and say which objects were kept.

    Symmetric objects are brought into the turns that the fitted weights are nearest to, and it is fitted again.
    """
    symmetric = bool((fit.orders > 1).any())
    for _ in range(_ROUNDS if symmetric else 1):
        kept = without_misfits(fit_landmark_weights, apply_landmark_weights, fit.points, fit.landmarks, fit.known)
        weights = fit_landmark_weights(fit.points, fit.landmarks, fit.known & kept[:, None])
        if symmetric:
            fit = fit.turned(nearest_turns(apply_landmark_weights(weights, fit.points), fit))
    return weights, kept


def predict_landmarks(
    test: Judged, fit: Judged | None
) -> tuple[Float[Tensor, "item landmark dim"], Bool[Tensor, " fitted"]]:
    """Predict landmarks as fixed weighted means of the keypoints, which rotate with the object.

    The weights are fitted on ``fit``; or, if it is None, on each half of the objects for the other half. Objects that
    the others' fit misses by far are left out of it (:func:`keyorbit.metrics.without_misfits`). Symmetric objects of
    both must be in turns that agree, see :func:`agreed`.

    Returns:
        The landmarks, and which objects the weights were fitted on, of ``fit`` or else of ``test``.
    """

    def predict(fitted: Judged, points: Tensor) -> tuple[Tensor, Tensor]:
        weights, kept = fit_weights(fitted)
        return apply_landmark_weights(weights, points), kept

    return _either_way(predict, test, fit)


def regress_landmarks(test: Judged, fit: Judged | None) -> Float[Tensor, "item landmark 2"]:
    """Predict landmarks in pictures as the literature does, by a linear map of all coordinates; ``fit`` as above.

    It is plain least squares of all pictures, as published.
    """

    def predict(fitted: Judged, points: Tensor) -> tuple[Tensor, Tensor]:
        linear = fit_landmark_map(fitted.points, fitted.landmarks, fitted.known)
        return apply_landmark_map(linear, points), fitted.known.any(1)

    return _either_way(predict, test, fit)[0]


def view_boxes(found: Outcome, truth: Truth, views: slice) -> Float[Tensor, "view 2"]:
    """Return width and height of the object's box in some of the truth's views, in sides of the view.

    The boxes are those annotated, or else those of the silhouettes of the detection's views; 0 where there is neither.
    """
    if truth.boxes is not None:
        return truth.boxes[views]
    count = len(truth.keypoints_2d[views])
    return found.extents if count == len(found.extents) else truth.keypoints_2d.new_zeros(count, 2)


def _either_way(
    predict: Callable[[Judged, Tensor], tuple[Tensor, Tensor]], test: Judged, fit: Judged | None
) -> tuple[Tensor, Tensor]:
    if fit is not None:
        return predict(fit, test.points)
    if len(test.points) < 2:
        return predict(test, test.points)
    even = torch.arange(len(test.points)) % 2 == 0
    predicted, kept = torch.empty_like(test.landmarks), torch.empty_like(even)
    for half in (even, ~even):
        predicted[half], found = predict(test.select(~half), test.points[half])
        kept[~half] = found.cpu()
    return predicted, kept


def _in_picture(detection: Outcome) -> Float[Tensor, "keypoint 2"] | None:
    """Return the keypoints on the input picture: those of the only view, or of the pass that reads that picture.

    They are in the unit square of its middle square, as landmarks are, wherever the object is.
    """
    flat, framing = detection.keypoints_2d, detection.framing
    if len(flat.xy) == 1 or flat.input_xy is None or framing is None:
        return flat.xy[0] if len(flat.xy) == 1 else flat.input_xy
    scale, shift = framing.to_middle
    return flat.input_xy * scale + torch.tensor(shift)
