"""The settings of tokens that are fitted to marks. It imports no library but the checks."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from keyorbit.diffusion.choices import Layers, MapKind, Timesteps
from keyorbit.discovery.ranges import Rate
from keyorbit.values import Amount, Count, Seed, check_fields


@dataclass(frozen=True)
class MarkConfig:
    """The settings of tokens that are fitted to marks.

    Attributes:
        helpers: tokens besides the marked ones, for points of the object far from these. They are no keypoints, but
            help to find how an object is turned. Default 16; 0 where a run's tokens help instead.
        planting: steps on the marked objects alone, from a warm softmax to a cold one. Default 100.
        steps: steps after these, on marked objects and on those without marks, whose points are placed as discovery
            places them. Default 100. There are none where a single object is all there is.
        batch: marked objects, and objects without marks, in each step. Default 4.
        rate: learning rate at the first step of each of both; it falls to a tenth at the last. Default 0.05.
        spot: standard deviation of a mark's spot in a view, in sides of the view. Default 0.03.
        noises: draws of noise of each object; every step takes one of them. Default 4, as detection has.
        layers: names or patterns of the cross-attention layers that are read. None is the model's own choice.
        timestep: how much noise the UNet sees, 0…999. None is the model's own.
        maps: kind of maps, see :class:`keyorbit.DiscoverConfig`. None is the model's own.
        seed: of tokens, helpers, batches, noise and generated views.

    Raises:
        InputError: a value is out of its range.
    """

    helpers: Amount = 16
    planting: Count = 100
    steps: Amount = 100
    batch: Count = 4
    rate: Rate = 0.05
    spot: Annotated[float, Meta(ge=0.005, le=0.5)] = 0.03
    noises: Count = 4
    layers: Layers | None = None
    timestep: Timesteps | None = None
    maps: MapKind | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
