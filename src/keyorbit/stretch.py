"""How one object's build differs from another's: the affine map that takes the one's surface nearest to the other's.

A constellation is of one object; a longer bus has its rear wheels further back. What the silhouettes tell of that,
before any token is read, is how far an object reaches in each direction.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Smallest standard deviation of a surface, in the points' unit: a flat object stays invertible.
_FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class Form:
    """Mean and covariance of points on objects' surfaces, that stand upright: no covariance with the vertical."""

    middle: Float[Tensor, "*batch 3"]
    covariance: Float[Tensor, "*batch 3 3"]

    @property
    def rows(self) -> Float[Tensor, "*batch 4 3"]:
        """Both as one tensor: the mean, and the covariance's rows."""
        return torch.cat([self.middle[..., None, :], self.covariance], dim=-2)

    @classmethod
    def from_rows(cls, rows: Float[Tensor, "*batch 4 3"]) -> "Form":
        """From :attr:`rows`."""
        return cls(rows[..., 0, :], rows[..., 1:, :])


def form_of(points: Float[Tensor, "*batch point 3"]) -> Form:
    """The form of an object's surface."""
    middle = points.mean(-2)
    away = points - middle[..., None, :]
    upright = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).to(points)
    return Form(middle, upright * (away.mT @ away) / points.shape[-2])


def stretched(points: Float[Tensor, "*#batch point 3"], here: Form, there: Form) -> Float[Tensor, "*#batch point 3"]:
    """Points beside a surface of the form ``here``, moved to where they are beside one of the form ``there``.

    The linear map is symmetric and positive: it stretches and never turns. It is the optimal transport between normal
    distributions (Knott & Smith 1984; Peyré & Cuturi 2019, remark 2.31), and the way back is its inverse.
    """
    root, inverse = _power(here.covariance, 0.5), _power(here.covariance, -0.5)
    by = inverse @ _power(root @ there.covariance.double() @ root, 0.5) @ inverse
    moved: Tensor = (points - here.middle[..., None, :]) @ by.to(points) + there.middle[..., None, :]
    return moved


def _power(matrix: Float[Tensor, "*batch 3 3"], exponent: float) -> Float[Tensor, "*batch 3 3"]:
    value, vector = torch.linalg.eigh(matrix.double())
    found: Tensor = (vector * value.clamp_min(_FLAT**2).pow(exponent)[..., None, :]) @ vector.mT
    return found
