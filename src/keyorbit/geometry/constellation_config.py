"""The settings of a constellation. It imports no library but the checks: settings are read before there is torch."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from keyorbit.values import Count, check_fields

# A standard deviation in radii of the sphere that all cameras see: float32 holds the square of its inverse.
Width = Annotated[float, Meta(ge=1e-3, le=1000)]


@dataclass(frozen=True)
class ConstellationConfig:
    """How much evidence and constellation count. Lengths are in radii of the sphere that all cameras see.

    Attributes:
        angles: number of turns that are tried, at equal steps, 1 or more. Default 36 (every 10°). Time grows in
            proportion.
        wide: standard deviation of a token about its place while the turn is searched, 0.001 to 1000. Default 0.3.
        near: the same while the tokens learn. Default 0.12.
        read: the same when a token is read on a new object. Default 0.2. Increase it for objects that differ much in
            shape.
        trust: share of the views' evidence that counts in discovery and while the turn is searched, in (0, 1]. Default
            0.5, because neighbouring views make the same errors.
        absent: likelihood, relative to flat heatmaps, of an object that lacks the token's part, in (0, 1]. Default
            0.05. It bounds how much one token can speak against a turn.
        stretch: whether the places are stretched to each object's form, known from its silhouettes, once the turn is
            found. Default True.

    Raises:
        InputError: a value is out of its range.
    """

    angles: Count = 36
    wide: Width = 0.3
    near: Width = 0.12
    read: Width = 0.2
    trust: Annotated[float, Meta(ge=1e-6, le=1)] = 0.5
    absent: Annotated[float, Meta(ge=1e-30, le=1)] = 0.05
    stretch: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
