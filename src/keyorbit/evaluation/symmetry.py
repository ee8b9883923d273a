"""Objects that look the same after a turn about the vertical: they are judged in the turn that fits best.

A square table has four headings, and no keypoint can know which of them its file calls the front. So where an object
says that it is symmetric, its landmarks are turned by each multiple of 360° / order about the world's vertical axis,
and those that lie nearest to the predicted ones are its truth. A landmark's turned place is where its part is as well:
what permutes the landmarks follows from the geometry.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keyorbit.evaluation.metrics.averages import distance_between, item_means
from keyorbit.geometry.alignment import turns_by
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import Truth
from keyorbit.objects.description import Symmetry

# A round object may be turned by any angle; these are 5° apart.
ROUND = 72
# A landmark so near to the turned place of another, in sizes of the object, is its twin: they are seen together.
_TWIN = 0.05
# Objects that are tried as the one with which the others are compared.
_REFERENCES = 50


def order_of(symmetry: Symmetry) -> int:
    """Return how many turns bring an object onto itself: 1 for one without symmetry, 72 for a round one."""
    return ROUND if symmetry == "round" else symmetry


def symmetric_turns(order: int, like: Tensor) -> Float[Tensor, "order 3 3"]:
    """Compute the rotations by multiples of 360° / ``order`` about +z; the first is none."""
    return turns_by(torch.arange(order).to(like) * (2 * torch.pi / order))


def turns_nearest(
    found: Float[Tensor, "item landmark 3"],
    truth: Float[Tensor, "item landmark 3"],
    known: Tensor,
    orders: Int[Tensor, " item"],
) -> Float[Tensor, "item 3 3"]:
    """Compute the turn of each item's truth, of those that its order allows, that is nearest to what was found.

    The nearest has the least mean distance over known landmarks.
    """
    turns = torch.eye(3).to(truth).repeat(len(truth), 1, 1)
    for i in (orders > 1).nonzero()[:, 0].tolist():
        allowed = symmetric_turns(int(orders[i]), truth)
        away = item_means(distance_between(truth[i] @ allowed.mT, found[i]), known[i].expand(len(allowed), -1))
        turns[i] = allowed[away.argmin()]
    return turns


def common_turns(
    points: Float[Tensor, "item keypoint 3"],
    landmarks: Float[Tensor, "item landmark 3"],
    known: Bool[Tensor, "item landmark"],
    orders: Int[Tensor, " item"],
) -> Float[Tensor, "item 3 3"]:
    """Compute turns of the items' landmarks so that keypoints and landmarks are related in the same way on all items.

    What relates them are the distances from every keypoint to every landmark. They do not depend on where an item's
    front is, nor on whether the keypoints know it or stand as the camera does. Those of each item, in all turns that
    its order allows, are compared with those of the first 50, unturned; the reference is the one of these with the
    least sum of mean differences.
    """
    turns = torch.eye(3).to(points).repeat(len(points), 1, 1)
    allowed = [symmetric_turns(int(order), points) for order in orders.tolist()]
    related = [torch.cdist(points[i].expand(len(own), -1, -1), landmarks[i] @ own.mT) for i, own in enumerate(allowed)]
    away = [
        [_difference(related[i], related[j][0], known[i] & known[j]) for i in range(len(points))]
        for j in range(min(len(points), _REFERENCES))
    ]
    best = min(away, key=lambda row: sum(float(one.min()) for one in row))
    for i, order in enumerate(orders.tolist()):
        if order > 1:
            turns[i] = allowed[i][best[i].argmin()]
    return turns


def _difference(
    turned: Float[Tensor, "turn keypoint landmark"],
    reference: Float[Tensor, "keypoint landmark"],
    common: Bool[Tensor, " landmark"],
) -> Float[Tensor, " turn"]:
    """Compute the mean difference of distances to landmarks that both have; 0 where there are none."""
    return (turned - reference).abs().mean(-2).masked_fill(~common, 0).sum(-1) / common.sum().clamp_min(1)


def turned_truth(truth: Truth, turn: Float[Tensor, "3 3"], cameras: Cameras | None) -> Truth:
    """Return the truth after a turn about the vertical, in space and in its pictures.

    In the views the turned landmarks are projected. What is seen of one is told by its twin, the known landmark within
    0.05 of its turned place; one without a twin counts as seen. In pictures whose camera is not known, such as the
    input picture, only landmarks with a twin count, and have its place.
    """
    places = truth.keypoints_3d
    if places is None or bool((turn == torch.eye(3).to(turn)).all()):
        return truth
    went = places @ turn.to(places).mT
    away = torch.cdist(went, places).masked_fill(~truth.known, torch.inf)
    nearest = away.argmin(-1)
    twin = (away.amin(-1) <= _TWIN) & truth.known
    flat, visible = truth.keypoints_2d[:, nearest].clone(), truth.visible[:, nearest] | ~twin
    visible[0] &= twin
    there = flat[:0] if cameras is None else cameras.to(flat.device, flat.dtype).project(went)[: len(flat) - 1]
    flat[1 : 1 + len(there)] = there
    visible[1 + len(there) :] &= twin
    return replace(truth, keypoints_3d=went, keypoints_2d=flat, visible=visible & truth.known)
