"""The weights of what a discovery minimises. It imports no library but the checks: settings are read before torch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from keyorbit.discovery.ranges import Weight
from keyorbit.values import check_fields

# How StableKeypoints finds the tokens of one picture among which the furthest points are taken: its top_k_strategy.
Strategy = Literal["gaussian", "entropy", "consistent"]
Subjects = Annotated[int, Meta(ge=1, le=1000)]


@dataclass(frozen=True)
class LossWeights:
    """How much each term of the objective counts; 0 leaves it out.

    Attributes:
        geometric: reprojection of the triangulated point over all views and warped versions, squared sides of a view.
        spread: spatial variance of the heatmaps, the same unit.
        separation: hinge that keeps the tokens' 3D points ``margin`` apart, squared world units.
        silhouette: distance of the projected 3D points from the object, sides of a view.
        on_object: heatmap mass outside the silhouette, 0…1.
        sharpening: squared error to a Gaussian at the peak (StableKeypoints' form). It has almost no gradient for
            attention maps that start near 1/93.
        margin: of the separation, world units.

    Raises:
        InputError: a value is out of its range.
    """

    # Terms of older versions; their settings are read where these are 0: keyorbit.values.
    RETIRED: ClassVar = ("uncertain", "epipolar", "likelihood", "uncovered", "constellation")

    geometric: Weight = 5.0
    spread: Weight = 0.25
    separation: Weight = 10.0
    silhouette: Weight = 1.0
    on_object: Weight = 0.0
    sharpening: Weight = 0.0
    margin: Annotated[float, Meta(ge=0, le=1000)] = 0.25

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SingleViewWeights:
    """How much each term counts where there are no cameras, and what it is for; StableKeypoints' numbers.

    Attributes:
        sharpening: weight of the squared error to a Gaussian at the peak.
        equivariance: weight of the squared difference to the maps of the warped versions.
        sigma: of the Gaussian, pixels of the map.
        subjects: how many things of the kind a picture shows: each token's map is to have as many spots.
        strategy: how the tokens are ranked of which the furthest apart are optimised, in each picture: ``gaussian`` by
            their distance from one spot, ``entropy`` by their entropy; ``consistent`` takes the first tokens, always.

    Raises:
        InputError: a value is out of its range.
    """

    sharpening: Weight = 100.0
    equivariance: Weight = 1000.0
    sigma: Annotated[float, Meta(ge=1e-3, le=10**6)] = 2.0
    subjects: Subjects = 1
    strategy: Strategy = "gaussian"

    def __post_init__(self) -> None:
        check_fields(self)
