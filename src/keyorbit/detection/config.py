"""How keypoints are read off the maps."""

from dataclasses import dataclass

from keyorbit.detection.choices import NOISES, WARPS, Peak, Space, Window
from keyorbit.values import Amount, Count, Seed, check_fields


@dataclass(frozen=True)
class DetectConfig:
    """How keypoints are read.

    | space | a keypoint in space is | used for |
    |---|---|---|
    | ``constellation`` | where its heatmaps and its place on the common shape agree, all tokens together | tokens \
that have a constellation, on upright views |
    | ``evidence`` | where the product of its heatmaps is largest, within the visual hull | all others with cameras |
    | ``triangulation`` | where the rays through its places in the views meet | comparison |

    They are measured against each other in docs/research-log.md.

    Attributes:
        noises: draws of noise that are averaged; more give steadier keypoints, and cost as much more time.
        warps: warped versions that are averaged besides.
        peak: a view's place: ``soft`` is the expected position, ``window`` the expected position near the peak,
            ``argmax`` the peak's pixel. None is ``soft``, but ``window`` for the attention of a single view, which is
            0 nowhere and would pull to the middle of the picture. With a constellation and None, the place is read near
            the common point.
        window: half the side of the window, in sides of the view; the score is the heatmap's mass inside it, less a
            flat map's.
        seed: of noise, warps and generated views.
        space: see the table; None chooses between the first two.
        nearness: standard deviation of the Gaussian about the common point, in sides of the view. A view that marks
            something else has a low score there.

    Raises:
        InputError: a value is out of its range.
    """

    noises: Count = NOISES
    warps: Amount = WARPS
    peak: Peak | None = None
    window: Window = 0.12
    seed: Seed = 0
    space: Space | None = None
    nearness: Window = 0.08

    def __post_init__(self) -> None:
        check_fields(self)
