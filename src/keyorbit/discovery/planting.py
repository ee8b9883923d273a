"""An object's surface as planting reads it: points of its hull, and how unlikely tokens are where they belong."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Heat that is as good as none, against a flat map: where a logarithm is taken of it.
NO_HEAT = 1e-3
# Fresh tokens have logits of order 1: planting begins with a softmax this warm.
WARM = 0.2
# Standard deviation of the spots that are planted, in radii.
SPOT = 0.06


@dataclass(frozen=True, eq=False)
class Hull:
    """Points on the surface of one object's visual hull; lengths are in radii of what the views look at.

    turned: the points about the middle, under each of the angles that are tried; xy: where each version's views show
    them; seen: whether they do: in sight, and within the picture.
    """

    turned: Float[Tensor, "angle point 3"]
    xy: Float[Tensor, "version view point 2"]
    seen: Bool[Tensor, "version view point"]


def misplaced(
    hulls: Sequence[Hull],
    share: Float[Tensor, "object token point"],
    heat: Float[Tensor, "object version view token point"],
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy of the heatmaps to the places, over the views and versions that show them; flat maps give 0."""
    seen = torch.stack([hull.seen for hull in hulls])
    weight = share[:, None, None] * seen[:, :, :, None].to(share)
    loss = -(weight * (heat + NO_HEAT).log()).sum() / weight.sum().clamp_min(1e-6)
    return {"misplaced": loss, "total": loss}
