"""The settings of joint training."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.choices import Mode
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig, SettledConfig, config_from_settings
from keyorbit.discovery.objective import LossWeights
from keyorbit.errors import InputError, one_of
from keyorbit.training.choices import Precision, Tracker, Trained, check_choices
from keyorbit.training.optimise import OptimiseConfig

Shape = Literal["constant", "linear", "cosine"]
# What may differ between a run and the run that resumes it.
_ONLY_WATCHING = ("save_every", "keep", "log_every", "sample_every", "tracker")


@dataclass(frozen=True)
class Term:
    """How much a loss counts, step by step.

    0 before ``start``, then a linear rise to ``weight`` over ``warmup`` steps; from there it stays, or moves to ``end``
    at the last step, evenly (``linear``) or in half a cosine (``cosine``).
    """

    weight: float
    start: int = 0
    warmup: int = 0
    shape: Shape = "constant"
    end: float = 0.0

    def __post_init__(self) -> None:
        one_of("shape", self.shape, get_args(Shape))
        if min(self.weight, self.end, self.start, self.warmup) < 0:
            raise InputError(f"a loss term has no negative numbers: {self}")

    def at(self, step: int, steps: int) -> float:
        """The weight at a step of a run of ``steps``."""
        risen = self.start + self.warmup
        if step < risen:
            return self.weight * max(0, step - self.start + 1) / (self.warmup + 1)
        if self.shape == "constant":
            return self.weight
        way = (step - risen) / max(1, steps - 1 - risen)
        if self.shape == "cosine":
            way = 0.5 - 0.5 * math.cos(math.pi * way)
        return self.weight + (self.end - self.weight) * way


@dataclass(frozen=True)
class Terms:
    """The losses of a training step; ``keypoint`` multiplies the four keypoint terms.

    nvs: v-prediction on the grid. localization: every map a spot; consistency: the views' places belong to one point in
    space; geometric: these points lie apart and on the object. Within each of these, :class:`LossWeights` says how much
    its parts count. equivariance: warped views have warped maps; above 0 it doubles what the UNet has to do.
    """

    nvs: Term = field(default_factory=lambda: Term(1.0))
    localization: Term = field(default_factory=lambda: Term(0.5))
    equivariance: Term = field(default_factory=lambda: Term(0.0))
    consistency: Term = field(default_factory=lambda: Term(0.3))
    geometric: Term = field(default_factory=lambda: Term(0.2))
    keypoint: float = 1.0

    def at(self, step: int, steps: int) -> dict[str, float]:
        """Every term's weight at that step; terms without one are left out."""
        found = {}
        for item in fields(self):
            if item.name != "keypoint":
                weight = getattr(self, item.name).at(step, steps)
                found[item.name] = weight if item.name == "nvs" else self.keypoint * weight
        return {name: weight for name, weight in found.items() if weight}


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the attention layers' projections (Hu et al. 2022)."""

    rank: int = 16
    alpha: int = 16
    layers: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class TrainConfig:
    """The settings of :func:`keyorbit.training.train.train`.

    train: what learns besides the tokens: nothing (``tokens``), LoRA on the UNet's attention, or the ``full`` UNet.
    batch: objects in a forward pass; a step is ``accumulate`` of them on each process. mode: ``joint``, the tokens take
    part in the UNet's softmax, or ``isolated``, they read it only. tokens_first: the share of the steps in which the
    tokens learn alone. timesteps: from the first to below the last; keypoint losses count below ``keypoint_timesteps``:
    beyond, the views are noise. min_snr: γ of the timesteps' weights, 0 for none. dropped: share of samples without
    condition, for guidance. token_rate, unet_rate: learning rates; None is 1e-4 for LoRA and 1e-5 for the full UNet.
    layers, start_temperature, temperature, weights: how maps are read and judged, see
    :class:`~keyorbit.discovery.discover.DiscoverConfig`; None is what the given tokens were discovered with, at their
    final temperature, or the default. sample_every: steps between sheets of generated views, 0 for none.
    """

    train: Trained = "lora"
    num_tokens: int = 16
    steps: int = 1000
    batch: int = 1
    accumulate: int = 4
    seed: int = 0
    mode: Mode = "joint"
    tokens_first: float = 0.2
    terms: Terms = field(default_factory=Terms)
    timesteps: tuple[int, int] = (0, 1000)
    keypoint_timesteps: int = 700
    min_snr: float = 0.0
    dropped: float = 0.1
    token_rate: float = 0.01
    unet_rate: float | None = None
    warmup: int = 50
    cooldown: float = 0.2
    average: float = 0.999
    lora: Lora = field(default_factory=Lora)
    layers: str | tuple[str, ...] | None = None
    start_temperature: float | None = None
    temperature: float | None = None
    weights: LossWeights | None = None
    precision: Precision = "no"
    checkpointing: bool = False
    save_every: int = 250
    keep: int = 2
    log_every: int = 10
    sample_every: int = 0
    sample_steps: int = 28
    tracker: Tracker = "none"

    def __post_init__(self) -> None:
        check_choices(train=self.train, mode=self.mode, precision=self.precision, tracker=self.tracker)
        if min(self.num_tokens, self.batch, self.accumulate, self.save_every, self.log_every, self.lora.rank) < 1:
            raise InputError("num_tokens, batch, accumulate, save_every, log_every and the LoRA's rank are 1 or more")
        if self.steps < 0 or self.keep < 0 or self.sample_every < 0:
            raise InputError("steps, keep and sample_every are 0 or more")
        if not (0 <= self.tokens_first <= 1 and 0 <= self.dropped <= 1):
            raise InputError("tokens_first and dropped are shares, 0 to 1")
        if not 0 <= self.timesteps[0] < self.timesteps[1] <= 1000 or self.keypoint_timesteps <= self.timesteps[0]:
            raise InputError("timesteps are 0 to 1000, the first below the last and below keypoint_timesteps")

    def optimise_config(self) -> OptimiseConfig:
        """The loop's part of the settings."""
        rate = self.unet_rate or (1e-4 if self.train == "lora" else 1e-5)
        first = 0 if self.train == "tokens" else round(self.tokens_first * self.steps)
        return OptimiseConfig(
            self.steps,
            rate,
            warmup=self.warmup,
            cooldown=self.cooldown,
            average=self.average,
            save_every=self.save_every,
            log_every=self.log_every,
            rates={"tokens": self.token_rate},
            starts={"unet": first},
            keep=self.keep,
            watch_every=self.sample_every or self.steps + 1,
        )

    def reading(self, backend: Backend, tokens: Tokens | None) -> SettledConfig:
        """How the tokens are read: as they were discovered, if they were, with what is set here in its place."""
        base = DiscoverConfig(num_tokens=self.num_tokens, num_candidates=self.num_tokens)
        start = base.start_temperature
        if tokens is not None and tokens.info.settings:
            base = config_from_settings(tokens.info.settings)
            start = base.temperature
        count = self.num_tokens if tokens is None else len(tokens)
        return replace(
            base,
            num_tokens=count,
            num_candidates=count,
            mode=self.mode,
            steps=self.steps,
            layers=base.layers if self.layers is None else self.layers,
            start_temperature=start if self.start_temperature is None else self.start_temperature,
            temperature=base.temperature if self.temperature is None else self.temperature,
            weights=base.weights if self.weights is None else self.weights,
        ).settled(backend)

    def settings(self) -> dict[str, Any]:
        """What a run that is resumed must share."""
        return {key: value for key, value in asdict(self).items() if key not in _ONLY_WATCHING}
