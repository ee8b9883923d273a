"""How objects are shown to the model, and what is recorded of them."""

from dataclasses import dataclass, field, fields
from typing import Any

from keyorbit.diffusion.choices import MapKind


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
        scale: smallest and largest scale of a warp.
        shift: largest shift of a warp along each axis, in sides of the view.
        seed: of warps and noise. None is the seed of the discovery.
    """

    timestep: int | tuple[int, ...] | None = None
    warps: int | None = None
    noises: int | None = None
    rotation_deg: float = 15.0
    scale: tuple[float, float] = (0.85, 1.1)
    shift: float = 0.1
    seed: int | None = None

    def settled(
        self, timestep: int | tuple[int, ...], warps: int = 0, noises: int = 1, seed: int = 0
    ) -> "SettledPrepare":
        """The same with these values in place of those that are None."""
        chosen: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(PrepareConfig)}
        given: dict[str, Any] = {"timestep": timestep, "warps": warps, "noises": noises, "seed": seed}
        chosen |= {name: value for name, value in given.items() if chosen[name] is None}
        return SettledPrepare(**chosen)


@dataclass(frozen=True)
class SettledPrepare(PrepareConfig):
    """The same with nothing left open; see :meth:`PrepareConfig.settled`."""

    timestep: int | tuple[int, ...] = field(kw_only=True)
    warps: int = field(kw_only=True)
    noises: int = field(kw_only=True)
    seed: int = field(kw_only=True)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """One or several."""
        return self.timestep if isinstance(self.timestep, tuple) else (self.timestep,)

    @property
    def versions(self) -> int:
        """How many versions of each object there are: warps and the unwarped one, times timesteps, times noises."""
        return (1 + self.warps) * len(self.timesteps) * self.noises


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded of an object.

    Attributes:
        layers: names or patterns of the cross-attention layers.
        maps: the kind of maps that will be read. For logits the layers of one size are kept as one, and there is no
            normalizer; ``attention`` keeps every layer with the normalizer of its text tokens.
        prepare: the versions in which the object is shown.
        condition: also the pass on the input picture, for models that have one. Default: the grid of views alone.
    """

    layers: tuple[str, ...]
    maps: MapKind
    prepare: SettledPrepare
    condition: bool = False
