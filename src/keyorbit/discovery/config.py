"""The settings of a discovery."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, get_args

from msgspec import Meta

from keyorbit.diffusion.choices import Layers, MapKind, TokensMode
from keyorbit.diffusion.config import PrepareConfig, RecordConfig, SettledPrepare
from keyorbit.discovery.choices import NUM_TOKENS, Method, Preset, Published
from keyorbit.discovery.ranges import MapSide, Rate, Temperature
from keyorbit.discovery.weights import LossWeights, SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.geometry.constellation_config import ConstellationConfig
from keyorbit.values import Amount, Count, Seed, check_fields, check_kind, from_values

if TYPE_CHECKING:  # a file of settings is read before there is torch
    import keyorbit.diffusion.backends.base

SINGLE_VIEW_MAPS: MapKind = "attention"  # measured against the others: docs/research-log.md


@dataclass(frozen=True)
class DiscoverConfig:
    """The settings of a discovery.

    Attributes:
        num_tokens: keypoints that are reported.
        num_candidates: tokens that are optimised; the best of them become keypoints. At least ``num_tokens``.
        method: what is minimised where there are cameras. ``constellation`` places all tokens on one common shape
            (:mod:`keyorbit.discovery.constellation_run`); choose ``consistency``
            (:mod:`keyorbit.discovery.consistency_run`) for objects that do not stand upright.
        layers: names or patterns of the cross-attention layers that are read. None is the model's own choice.
        mode: ``isolated``, the tokens read the picture and do not change it; ``joint``, they take part in the UNet's
            softmax, which then runs at every step; or ``alone``, likewise, and there is no text beside them.
        maps: what a token's map is made of, see :func:`keyorbit.diffusion.maps.token_maps`. None is ``logits``, but
            ``attention`` for a model of a single view.
        steps: of the optimisation. More help on many different objects.
        batch: objects in each step.
        rate: learning rate at the first step; it falls to a tenth at the last.
        seed: of the tokens, the batches, the warps and the noise.
        map_size: side of a view's map, pixels; 0 is twice the latent's side.
        start_temperature: of the softmax over a map's pixels at the first step, for ``logits``. Warm maps are flat, so
            that tokens still move; by ``consistency`` it falls to ``temperature`` in the first four fifths of the
            steps.
        temperature: at the end, by ``constellation`` at every step, and in detection. The mean over heads and layers
            leaves logits far below 1, therefore it is small.
        planting: steps on each of the exemplars, before the others; ``constellation`` only.
        exemplars: objects on which planting is tried; the tokens that fit the other objects best are kept.
        constellation: how tokens are placed on the common shape.
        weights: of the terms of :func:`keyorbit.discovery.objective.objective`; ``consistency`` only.
        single_view: weights of the terms for a model of a single view.
        prepare: how objects are shown to the UNet.
        save_every: steps between checkpoints.
        published: what is done as StableKeypoints published it; :func:`preset_config` names all of it. Of a model of
            several views, each view is then a picture by itself. ``start``: tokens begin with mean 0 and variance 1,
            not as text rows. ``rate``: it does not fall. ``draws``: pictures come in shuffled passes and are prepared
            anew each time, with another warp and noise; nothing is kept in memory. ``ranking``: in each picture,
            tokens are ranked by the softmax of their maps, not by the maps' form alone. ``pair``: furthest points
            begin with the furthest pair, not with the best token. ``pixels``: equivariance counts all pixels, not
            the shown ones. ``votes``: the keypoints are those chosen in most of 100 pictures, not those of the best
            mean rank. ``reading``: detection averages warped versions only, at the picture's own size.

    Raises:
        InputError: a value is out of its range.
    """

    num_tokens: Count = NUM_TOKENS
    num_candidates: Count = 32
    method: Method = "constellation"
    layers: Layers | None = None
    mode: TokensMode = "isolated"
    maps: MapKind | None = None
    steps: Amount = 500
    batch: Count = 8
    rate: Rate = 0.05
    seed: Seed = 0
    map_size: MapSide = 0
    start_temperature: Temperature = 0.05
    temperature: Temperature = 0.01
    planting: Amount = 100
    exemplars: Count = 4
    constellation: ConstellationConfig = field(default_factory=ConstellationConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    single_view: SingleViewWeights = field(default_factory=SingleViewWeights)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    save_every: Count = 100
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.map_size == 1:
            raise InputError("map_size cannot be 1: a map of one pixel has no places; it must be 0 or 2 or more")
        if self.num_tokens > self.num_candidates:
            raise InputError(
                f"{self.num_tokens} keypoints cannot be chosen from {self.num_candidates} tokens: "
                "ask for at least as many candidates"
            )

    def settled(self, backend: "keyorbit.diffusion.backends.base.Backend") -> "SettledConfig":
        """The same with nothing left open: the model's own layers, timestep and maps, and the versions of the method.

        A constellation is searched in views of one rig, which warps take apart: it sees each object in three draws of
        noise. Where views have to agree, and where there is a single one, two warped versions are what equivariance is
        learned from. (Measured: docs/research-log.md.)
        """
        by_constellation = self.method == "constellation" and backend.cameras is not None and not self.published
        warps = (0 if by_constellation else 2) if self.prepare.warps is None else self.prepare.warps
        noises = 3 if by_constellation and not warps else 1
        layers = patterns(self.layers)
        return self.settled_as(
            backend.default_layers if layers is None else layers,
            self.maps or (SINGLE_VIEW_MAPS if backend.cameras is None else "logits"),
            self.prepare.settled(backend.default_timestep, warps, noises, self.seed, "draws" in self.published),
        )

    def settled_as(self, layers: tuple[str, ...], maps: MapKind, prepare: SettledPrepare) -> "SettledConfig":
        """The same with these layers, maps and versions."""
        chosen: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(DiscoverConfig)}
        return SettledConfig(**chosen | {"layers": layers, "maps": maps, "prepare": prepare})

    def temperature_at(self, step: int) -> float:
        """The temperature of that step: a geometric fall, then constant."""
        progress = min(1.0, step / max(1.0, 0.8 * self.steps))
        return float(self.start_temperature * (self.temperature / self.start_temperature) ** progress)


@dataclass(frozen=True)
class SettledConfig(DiscoverConfig):
    """The same for one model, with nothing left open; see :meth:`DiscoverConfig.settled`."""

    layers: Annotated[tuple[str, ...], Meta(min_length=1)] = field(kw_only=True)
    maps: MapKind = field(kw_only=True)
    prepare: SettledPrepare = field(kw_only=True)

    @property
    def recording(self) -> RecordConfig:
        """What a discovery needs recorded of each object."""
        return RecordConfig(self.layers, self.maps, self.prepare)


def preset_config(preset: Preset) -> DiscoverConfig:
    """The settings that have a name: ours, the defaults; or StableKeypoints' as published, for a model of one view.

    Source: Hedlin et al. 2024; github ubc-vision/StableKeypoints, main.py. What differs still is listed in
    docs/evaluation.md.
    """
    if preset == "keyorbit":
        return DiscoverConfig()
    return DiscoverConfig(
        num_tokens=10,
        num_candidates=500,
        mode="alone",
        maps="stablekeypoints",
        steps=500,
        batch=4,
        rate=5e-3,
        map_size=128,
        # The original's 0.8…1 and 0.25 are of the map from output to input in [-1, 1].
        prepare=PrepareConfig(warps=1, noises=1, rotation_deg=15.0, scale=(1.0, 1.25), shift=0.125),
        published=get_args(Published),
    )


def map_side(backend: "keyorbit.diffusion.backends.base.Backend", asked: int) -> int:
    """The side of a view's map: what was asked for, or twice the latent's."""
    return asked or 2 * backend.latent_size(backend.view_size, backend.view_size)[0]


# What decides how tokens are found, and not how they are read.
_OF_LEARNING = (
    *("weights", "single_view", "rate", "start_temperature", "steps", "batch", "planting", "exemplars", "seed"),
    "save_every",
)


def config_from_settings(settings: Mapping[str, Any], where: str = "the tokens' settings") -> DiscoverConfig:
    """The config that :class:`TokensInfo` keeps as plain values; ``where`` names these in error messages.

    Weights of terms that were removed since are left out: they say how the tokens were found, and nothing of how they
    are read. So are such settings with values that older versions allowed, and this one does not.

    Raises:
        InputError: a name or a value that the config has not.
    """
    weights = settings.get("weights", {})
    if isinstance(weights, Mapping):
        weights = {k: v for k, v in weights.items() if k not in LossWeights.RETIRED}
    try:
        return from_values(DiscoverConfig, {**settings, "weights": weights}, where)
    except InputError:
        reading = {name: value for name, value in settings.items() if name not in _OF_LEARNING}
        if len(reading) == len(settings):
            raise
        return from_values(DiscoverConfig, reading, where)


def patterns(layers: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Layers as several patterns, where one may have been given."""
    return (layers,) if isinstance(layers, str) else layers


def plain_settings(config: DiscoverConfig, **more: str | None) -> dict[str, Any]:
    """The config as JSON keeps it, where tuples are lists."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config) | more))
    return settings


def checked_config(config: object) -> DiscoverConfig:
    """Return the settings; those by default where there are none.

    Raises:
        InputError: it is something else.
    """
    if config is None:
        return DiscoverConfig()
    check_kind("config", config, DiscoverConfig, "a DiscoverConfig")
    assert isinstance(config, DiscoverConfig)
    return config
