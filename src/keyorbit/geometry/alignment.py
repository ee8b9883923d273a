"""Align the keypoints of several objects: turns about the vertical, mirror pairs, and the form of a surface."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.geometry.sampling import lower_median

# Mirror planes are tried at this many angles over half a turn.
_PLANES = 180
# Rounds of Procrustes analysis.
_ROUNDS = 5
# How far from its mirror image a token may lie, as a share of the largest distance between tokens.
_TOLERANCE = 0.1


def canonical_points(points: Float[Tensor, "item token 3"]) -> Float[Tensor, "item token 3"]:
    """Turn each item's points about +z so that all items lie as near to their common mean as possible.

    This is generalised Procrustes analysis (Gower 1975) with rotations about the vertical only: objects stand upright
    and keep their size, and only their heading is unknown. Points are relative to each item's centroid. The analysis
    starts from the item whose inner distances are nearest to the median of all items. The rotations carry no gradient;
    the rotated points do.
    """
    centred = points - points.mean(dim=1, keepdim=True)
    with torch.no_grad():
        inner = torch.cdist(centred, centred)
        apart = (inner - lower_median(inner, 0)).square().mean(dim=(1, 2))
        reference = centred[apart.nan_to_num(torch.inf).argmin()]
        for _ in range(_ROUNDS):
            turns = _turns(centred, reference)
            reference = (centred @ turns.mT).mean(dim=0)
    return centred @ turns.mT


def repeatability(points: Float[Tensor, "item token 3"]) -> tuple[Tensor, Tensor]:
    """Compute each token's mean position over the aligned items, [token 3], and its stray, [token].

    Stray is the root mean square distance of a token's points from that position. Both are in world units. The position
    is the median over the items, so that a few items on which a token fails do not move it.
    """
    return middle_and_stray(canonical_points(points))


def middle_and_stray(aligned: Float[Tensor, "item token 3"]) -> tuple[Tensor, Tensor]:
    """Compute position and stray as :func:`repeatability` does, of points that are aligned already."""
    middle = lower_median(aligned, 0)
    return middle, (aligned - middle).square().sum(-1).mean(dim=0).sqrt()


def symmetric_pairs(middle: Float[Tensor, "token 3"], stray: Float[Tensor, " token"]) -> list[tuple[int, int]]:
    """Find tokens that are each other's mirror image in an upright plane through the centroid, nearest pairs first.

    The plane is the one for which most points lie near some mirror image. Two tokens are a pair if each is the other's
    nearest mirror image, if their images lie within the tolerance (10 % of the largest distance between points), and if
    both lie further than that from the plane.

    Args:
        middle: position of each token on the common object.
        stray: distance by which each token strays, in the same unit. Tokens that stray more than the tolerance are in
            no pair.
    """
    size = torch.cdist(middle, middle).max()
    if len(middle) < 2 or size <= 0:
        return []
    limit = _TOLERANCE * size
    steady = (stray <= limit).nonzero()[:, 0]
    points = middle[steady]
    if len(points) < 2:
        return []
    angle = torch.arange(_PLANES).to(middle) * (torch.pi / _PLANES)
    normals = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)
    height = points @ normals.T  # token plane
    mirrored = points[None] - 2 * height.T[..., None] * normals[:, None]
    apart = torch.cdist(mirrored, points.expand(_PLANES, -1, -1))
    best = int((apart.amin(-1).clamp_max(limit)).mean(-1).argmin())
    distance = apart[best] + apart[best].T
    nearest = distance.argmin(-1)
    pairs = []
    for i, j in enumerate(nearest.tolist()):
        if i < j and int(nearest[j]) == i and distance[i, j] <= 2 * limit:
            aside = height[i, best].abs() > limit / 2 and height[j, best].abs() > limit / 2
            if aside and height[i, best] * height[j, best] < 0:
                pairs.append((float(distance[i, j]), int(steady[i]), int(steady[j])))
    return [(i, j) for _, i, j in sorted(pairs)]


def turns_by(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Compute rotation matrices about +z from angles in radians."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = [torch.stack([c, -s, zero], -1), torch.stack([s, c, zero], -1), torch.stack([zero, zero, one], -1)]
    return torch.stack(rows, -2)


def _turns(centred: Tensor, reference: Tensor) -> Tensor:
    """Compute rotations about +z, [item 3 3], that bring each item nearest to the reference (least squares)."""
    x, y = centred[..., 0], centred[..., 1]
    along = (x * reference[:, 0] + y * reference[:, 1]).sum(-1)
    across = (x * reference[:, 1] - y * reference[:, 0]).sum(-1)
    return turns_by(torch.atan2(across, along))


# Smallest standard deviation of a surface, in the points' unit: a flat object stays invertible.
_FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class Form:
    """The form of objects that stand upright: mean and covariance of the points on their surface.

    Attributes:
        middle: the mean.
        covariance: the covariance. Its terms between the vertical and the other axes are 0.
    """

    middle: Float[Tensor, "*batch 3"]
    covariance: Float[Tensor, "*batch 3 3"]

    @property
    def rows(self) -> Float[Tensor, "*batch 4 3"]:
        """Both as one tensor: the mean, then the three rows of the covariance."""
        return torch.cat([self.middle[..., None, :], self.covariance], dim=-2)

    @classmethod
    def from_rows(cls, rows: Float[Tensor, "*batch 4 3"]) -> "Form":
        """Build a form from :attr:`rows`."""
        return cls(rows[..., 0, :], rows[..., 1:, :])


def form_of(points: Float[Tensor, "*batch point 3"]) -> Form:
    """Compute the form of an object from points on its surface."""
    middle = points.mean(-2)
    away = points - middle[..., None, :]
    covariance = away.mT @ away / points.shape[-2]
    vertical = torch.arange(3, device=points.device) == 2
    return Form(middle, torch.where(vertical == vertical[:, None], covariance, 0.0))


def stretched(points: Float[Tensor, "*#batch point 3"], here: Form, there: Form) -> Float[Tensor, "*#batch point 3"]:
    """Move points from beside a surface of the form ``here`` to where they are beside one of the form ``there``.

    The linear map is symmetric and positive definite: it stretches and never rotates. It is the optimal transport
    between normal distributions (Knott & Smith 1984; Peyré & Cuturi 2019, remark 2.31). The way back is its inverse.
    """
    by = transport(here, there).to(points)
    moved: Tensor = (points - here.middle[..., None, :]) @ by + there.middle[..., None, :]
    return moved


def transport(here: Form, there: Form) -> Float[Tensor, "*batch 3 3"]:
    """Compute the linear map of :func:`stretched`, in float64 and on the CPU: not every device has that type."""
    first, second = (form.covariance.detach().cpu().double() for form in (here, there))
    root, inverse = _power(first, 0.5), _power(first, -0.5)
    by: Tensor = inverse @ _power(root @ second @ root, 0.5) @ inverse
    return by


def _power(matrix: Float[Tensor, "*batch 3 3"], exponent: float) -> Float[Tensor, "*batch 3 3"]:
    value, vector = torch.linalg.eigh(matrix)
    found: Tensor = (vector * value.clamp_min(_FLAT**2).pow(exponent)[..., None, :]) @ vector.mT
    return found
