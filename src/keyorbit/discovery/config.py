"""The settings of a discovery."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from keyorbit.diffusion.attention import Mode
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import MapKind
from keyorbit.diffusion.prepare import PrepareConfig
from keyorbit.discovery.choices import NUM_TOKENS, Method
from keyorbit.discovery.objective import LossWeights, SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.geometry.constellation import ConstellationConfig

SINGLE_VIEW_MAPS: MapKind = "attention"  # measured against the others: docs/decisions.md


@dataclass(frozen=True)
class DiscoverConfig:
    """The settings of a discovery.

    num_tokens: keypoints reported; num_candidates: tokens optimised, the best of which are kept; layers: names or
    patterns; maps: what a token's map is, see :func:`keyorbit.diffusion.maps.token_maps`. None stands for the model's
    own layers, timestep and maps, and for the warps and noises that suit the method (:meth:`settled`). map_size:
    side of a view's map, 0 for twice the latent's. temperature: of the softmax over pixels, at the end and for
    detection; it falls there from ``start_temperature`` within the first four fifths of the steps. The average over
    heads and layers leaves logits far below 1, and flat maps have next to no gradient; warm ones let the tokens
    look around before they settle. weights: of the objective with cameras; single_view: of the one without. method:
    what is minimised where there are cameras.

    constellation: see :mod:`keyorbit.discovery.constellation_run`; ``planting`` steps on each of ``exemplars``
    objects come before the others, and ``temperature`` is the same at all steps. consistency: the views of each object
    have to agree on a point of space, see :func:`keyorbit.discovery.objective.objective`; ``weights`` are of its terms.
    """

    num_tokens: int = NUM_TOKENS
    num_candidates: int = 32
    method: Method = "constellation"
    layers: str | tuple[str, ...] | None = None
    mode: Mode = "isolated"
    maps: MapKind | None = None
    steps: int = 500
    batch: int = 8
    rate: float = 0.05
    seed: int = 0
    map_size: int = 0
    start_temperature: float = 0.05
    temperature: float = 0.01
    planting: int = 100
    exemplars: int = 4
    constellation: ConstellationConfig = field(default_factory=ConstellationConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    single_view: SingleViewWeights = field(default_factory=SingleViewWeights)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    save_every: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.num_tokens <= self.num_candidates:
            raise InputError(
                f"{self.num_tokens} keypoints cannot be chosen from {self.num_candidates} tokens: "
                "ask for 1 or more, and for at least as many candidates"
            )
        if min(self.steps, self.planting) < 0 or min(self.batch, self.exemplars) < 1:
            raise InputError("the numbers of steps must be 0 or more, the batch and the exemplars 1 or more")
        if min(self.temperature, self.start_temperature) <= 0:
            raise InputError("temperatures must be above 0")

    def settled(self, backend: Backend) -> "DiscoverConfig":
        """The same with the model's own layers, timestep and maps, and the method's versions, where none were given.

        A constellation is searched in views of one rig, which warps take apart: it sees each object in three draws of
        noise. Where views have to agree, and where there is a single one, two warped versions are what equivariance is
        learned from. (Measured: docs/decisions.md.)
        """
        by_constellation = self.method == "constellation" and backend.cameras is not None
        prepare = self.prepare
        timestep = backend.default_timestep if prepare.timestep is None else prepare.timestep
        seed = self.seed if prepare.seed is None else prepare.seed
        warps = (0 if by_constellation else 2) if prepare.warps is None else prepare.warps
        noises = (3 if by_constellation and not warps else 1) if prepare.noises is None else prepare.noises
        return replace(
            self,
            layers=backend.default_layers if self.layers is None else patterns(self.layers),
            maps=(SINGLE_VIEW_MAPS if backend.cameras is None else "logits") if self.maps is None else self.maps,
            prepare=replace(prepare, timestep=timestep, seed=seed, warps=warps, noises=noises),
        )

    def temperature_at(self, step: int) -> float:
        """The temperature of that step: a geometric fall, then constant."""
        progress = min(1.0, step / max(1.0, 0.8 * self.steps))
        return float(self.start_temperature * (self.temperature / self.start_temperature) ** progress)


def map_side(backend: Backend, asked: int) -> int:
    """The side of a view's map: what was asked for, or twice the latent's."""
    return asked or 2 * backend.latent_size(backend.view_size, backend.view_size)[0]


def config_from_settings(settings: dict[str, Any]) -> DiscoverConfig:
    """The config that :class:`TokensInfo` keeps as plain values."""
    values = dict(settings)
    prepare = dict(values.pop("prepare"))
    prepare["scale"] = tuple(prepare["scale"])
    if isinstance(prepare["timestep"], list):
        prepare["timestep"] = tuple(prepare["timestep"])
    if isinstance(values["layers"], list):
        values["layers"] = tuple(values["layers"])
    parts: dict[str, Any] = {
        "prepare": PrepareConfig(**prepare),
        "constellation": ConstellationConfig(**values.pop("constellation", {})),
        "weights": LossWeights(**values.pop("weights")),
        "single_view": SingleViewWeights(**values.pop("single_view", {})),
    }
    return DiscoverConfig(**values, **parts)


def patterns(layers: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Layers as several patterns, where one may have been given."""
    return (layers,) if isinstance(layers, str) else layers


def plain_settings(config: DiscoverConfig, **more: str | None) -> dict[str, Any]:
    """The config as JSON keeps it, where tuples are lists."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config) | more))
    return settings
