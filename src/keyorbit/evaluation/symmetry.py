"""Objects that look the same after a turn about the vertical: they are judged in the turn that fits best.

A square table has four headings, and no keypoint can know which of them its file calls the front. So where an object
says that it is symmetric, its landmarks are turned by each multiple of 360° / order about the world's vertical axis,
and those that lie nearest to the predicted ones are its truth. A landmark's turned place is where its part is as well:
what permutes the landmarks follows from the geometry.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
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


def common_turns(points: Float[Tensor, "item keypoint 3"], orders: Int[Tensor, " item"]) -> Float[Tensor, "item 3 3"]:
    """Compute turns of the items' landmarks so that keypoints and landmarks are related in the same way on all items.

    The keypoints of each are compared, in all turns that its order allows, with those of every item; the reference is
    the item with the least sum of mean distances. An item whose keypoints lie on the reference's after a turn has its
    landmarks turned by the inverse.
    """
    turns = torch.eye(3).to(points).repeat(len(points), 1, 1)
    turned = [points[i] @ symmetric_turns(int(order), points).mT for i, order in enumerate(orders.tolist())]
    totals = [sum(float(distance_between(other, reference).mean(-1).min()) for other in turned) for reference in points]
    reference = points[min(range(len(points)), key=totals.__getitem__)]
    for i, order in enumerate(orders.tolist()):
        if order > 1:
            chosen = distance_between(turned[i], reference).mean(-1).argmin()
            turns[i] = symmetric_turns(order, points)[chosen].mT
    return turns


def turned_truth(truth: Truth, turn: Float[Tensor, "3 3"], cameras: Cameras | None) -> Truth:
    """Return the truth after a turn about the vertical, in space and in its pictures.

    In the views the turned landmarks are projected. What is seen of one is told by its twin, the known landmark within
    0.05 of its turned place; one without a twin counts as seen. On the input picture, whose camera is not known here,
    only landmarks with a twin count.
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
    count = len(flat) - 1
    if cameras is not None and count:
        flat[1:] = cameras.to(flat.device, flat.dtype).project(went)[:count]
    return replace(truth, keypoints_3d=went, keypoints_2d=flat, visible=visible & truth.known)
