"""How objects are shown to the model, and what is recorded of them."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from keyorbit.diffusion.choices import MapKind, Timesteps
from keyorbit.errors import InputError
from keyorbit.values import Amount, AnySeed, Count, check_fields

Scale = Annotated[float, Meta(ge=0.01, le=100)]


@dataclass(frozen=True)
class PrepareConfig:
    """How objects are shown to the UNet. Every object is encoded in several versions.

    Attributes:
        timestep: how much noise the UNet sees, 0…999; or several, each of which makes versions of its own. None is the
            model's own.
        warps: further versions of every object, in which each view has a random warp of its own. None is 2 for
            discovery by consistency or on single views, and 0 by constellation and for detection.
        noises: draws of noise for each of these. None is 3 for discovery by constellation without warps, else 1.
        rotation_deg: largest rotation of a warp, ± degrees.
        scale: smallest and largest scale of a warp, 0.01…100.
        shift: largest shift of a warp along each axis, in sides of the view.
        seed: of warps and noise. None is the seed of the discovery.

    Raises:
        InputError: a value is out of its range.
    """

    timestep: Timesteps | None = None
    warps: Amount | None = None
    noises: Count | None = None
    rotation_deg: Annotated[float, Meta(ge=0, le=360)] = 15.0
    scale: tuple[Scale, Scale] = (0.85, 1.1)
    shift: Annotated[float, Meta(ge=0, le=10)] = 0.1
    seed: AnySeed | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scale[0] > self.scale[1]:
            raise InputError(f"scale is the smallest and the largest one, not {self.scale[0]:g} and {self.scale[1]:g}")

    def settled(
        self, timestep: int | tuple[int, ...], warps: int = 0, noises: int = 1, seed: int = 0, published: bool = False
    ) -> "SettledPrepare":
        """The same with these values in place of those that are None; ``published``: warped as StableKeypoints does."""
        chosen: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(PrepareConfig)}
        given: dict[str, Any] = {"timestep": timestep, "warps": warps, "noises": noises, "seed": seed}
        chosen |= {name: value for name, value in given.items() if chosen[name] is None}
        return (PublishedPrepare if published else SettledPrepare)(**chosen)


@dataclass(frozen=True)
class SettledPrepare(PrepareConfig):
    """The same with nothing left open; see :meth:`PrepareConfig.settled`."""

    timestep: Timesteps = field(kw_only=True)
    warps: Amount = field(kw_only=True)
    noises: Count = field(kw_only=True)
    seed: AnySeed = field(kw_only=True)

    # Whether the map from the warped picture to the original is what is drawn, and what comes from outside is black.
    backwards: ClassVar[bool] = False

    @property
    def timesteps(self) -> tuple[int, ...]:
        """One or several."""
        return (self.timestep,) if isinstance(self.timestep, int) else tuple(self.timestep)

    @property
    def versions(self) -> int:
        """How many versions of each object there are: warps and the unwarped one, times timesteps, times noises."""
        return (1 + self.warps) * len(self.timesteps) * self.noises


@dataclass(frozen=True)
class PublishedPrepare(SettledPrepare):
    """The same, warped as StableKeypoints does (Hedlin et al. 2024, invertable_transform.py): see ``backwards``."""

    backwards: ClassVar[bool] = True


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded of an object.

    Attributes:
        layers: names or patterns of the cross-attention layers.
        maps: the kind of maps that will be read. For logits the layers of one size are kept as one, and there is no
            normalizer; ``attention`` keeps every layer with the normalizer of its text tokens.
        prepare: the versions in which the object is shown.
        condition: also the pass on the input picture, for models that have one. Default: the grid of views alone.
        blind: of the draws of noise of each version, the last so many are without the input picture. Default 0.
    """

    layers: tuple[str, ...]
    maps: MapKind
    prepare: SettledPrepare
    condition: bool = False
    blind: int = 0

    @property
    def sighted(self) -> list[int]:
        """The versions in which the model is shown the input picture."""
        noises = self.prepare.noises
        return [i for i in range(self.prepare.versions) if i % noises < noises - self.blind]
