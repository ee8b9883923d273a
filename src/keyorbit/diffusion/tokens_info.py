"""What tokens tell of themselves."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from keyorbit.diffusion.choices import Timesteps, TokensMode, layout_numbers
from keyorbit.errors import InputError
from keyorbit.values import Amount, Count, NotNegative

# What later versions added.
_ADDED = ("names", "layout", "cameras_mark", "statistics")
# In radii of what the views see, and their squares: beyond this nothing is seen, and float32 ends.
_Coordinate = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Point = tuple[_Coordinate, _Coordinate, _Coordinate]


@dataclass(frozen=True)
class Statistics:
    """How tokens read the objects that they were found on: what a detection is compared with.

    Attributes:
        objects: how many were read.
        stray: distance of each keypoint from its place, mean over these objects, radii
            (:class:`keyorbit.geometry.constellation.Reading`).
    """

    objects: Count
    stray: tuple[NotNegative, ...]


@dataclass(frozen=True)
class TokensInfo:
    """Where tokens come from: what one needs to use them, and to make them again.

    Attributes:
        model: name, folder or Hub id of the model that they were found on. A file of tokens keeps a folder as seen from
            its own, so that both can be moved; see :mod:`keyorbit.diffusion.model_places`.
        model_fingerprint: of its weights; other weights are refused.
        layers: names of the cross-attention layers that are read.
        timestep: 0…999, one or several.
        mode: ``isolated``, ``joint`` or ``alone``.
        seed: of the discovery.
        version: of keyorbit.
        settings: of the discovery (:class:`keyorbit.DiscoverConfig`), as plain values.
        queries: the type that the queries were kept in.
        objects: how many there were.
        libraries: versions of torch, diffusers and transformers.
        pairs: keypoints, by number, that mark mirror images of each other, such as a left and a right leg.
        places: shape [keypoints + helpers, 3]; unit: radius of the sphere that all cameras see. Where each token
            belongs on the common shape, up to a turn about the vertical; helpers are candidates that did not become
            keypoints but still vote on the turn. Empty for tokens that were found without a constellation.
        form: of the object that has them there, in the same unit: the mean of its surface, and the three rows of its
            covariance; see :mod:`keyorbit.geometry.alignment`.
        cameras_of: whose cameras the model was loaded with, where they were not those that its folder tells of: the
            name of a rig, or a file of cameras.
        names: of the keypoints, in their order, an empty one where a keypoint has none; none at all where nobody gave
            them.
        cameras_mark: a short hash of these cameras, if they are from a file, which may change. Empty for others, and in
            tokens of earlier versions.
        layout: rows x columns of the model's views, such as ``2x3``; empty for the 3 x 2 of Zero123++ and for a single
            view.
        statistics: of the keypoints on the objects that they were found on; None for tokens that have no constellation,
            or of versions that kept none.

    Raises:
        InputError: the form has neither 4 rows nor none, or the layout is none.
    """

    model: str = ""
    model_fingerprint: str = ""
    layers: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    timestep: Timesteps = 0
    mode: TokensMode = "isolated"
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0
    version: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    queries: str = "float32"
    objects: Amount = 0
    libraries: dict[str, str] = field(default_factory=dict)
    pairs: tuple[tuple[Amount, Amount], ...] = ()
    places: tuple[_Point, ...] = ()
    form: tuple[_Point, ...] = ()
    cameras_of: str = ""
    names: tuple[Annotated[str, Meta(max_length=200)], ...] = ()
    layout: str = ""
    cameras_mark: str = ""
    statistics: Statistics | None = None

    def __post_init__(self) -> None:
        if self.layout:
            layout_numbers(self.layout)
        if len(self.form) not in (0, 4):
            raise InputError(f"form has {len(self.form)} rows; it has 4, the mean and the covariance, or none")

    def plain(self) -> dict[str, Any]:
        """As files have it: what later versions added is written only where there is something to tell."""
        return {name: value for name, value in asdict(self).items() if value or name not in _ADDED}
